//! Pulls an image into a directory with oci-client, every digest verified: `layercake-peers NAME DIR [memory]`.
//!
//! Layers go straight into files, four at a time, which is its fastest way; with `memory` they go through its one-call
//! `pull`, which holds them in memory.

use std::path::Path;

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use oci_client::Client;
use oci_client::Reference;
use oci_client::client::ClientConfig;
use oci_client::client::ClientProtocol;
use oci_client::secrets::RegistryAuth;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory, how @ ..] = &arguments[..] else { return Err("usage: NAME DIR [memory]".into()) };
    let image: Reference = name.parse()?;
    let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
    let directory = Path::new(directory);
    tokio::fs::create_dir_all(directory).await?;
    if how.is_empty() { to_files(&client, &image, directory).await } else { through_memory(&client, &image, directory).await }
}

async fn to_files(client: &Client, image: &Reference, directory: &Path) -> Result {
    let (manifest, digest, config) = client.pull_manifest_and_config(image, &RegistryAuth::Anonymous).await?;
    tokio::fs::write(directory.join("config"), config).await?;
    tokio::fs::write(directory.join("digest"), digest).await?;
    let layers = futures_util::stream::iter(&manifest.layers).map(|layer| async move {
        let mut file = tokio::fs::File::create(directory.join(layer.digest.replace(':', "-"))).await?;
        client.pull_blob(image, layer, &mut file).await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    });
    layers.buffer_unordered(4).try_collect().await
}

async fn through_memory(client: &Client, image: &Reference, directory: &Path) -> Result {
    let types = [
        oci_client::manifest::IMAGE_LAYER_GZIP_MEDIA_TYPE,
        oci_client::manifest::IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE,
        oci_client::manifest::IMAGE_LAYER_MEDIA_TYPE,
    ];
    let data = client.pull(image, &RegistryAuth::Anonymous, types.to_vec()).await?;
    for (n, layer) in data.layers.into_iter().enumerate() {
        tokio::fs::write(directory.join(format!("layer-{n}")), layer.data).await?;
    }
    Ok(())
}
