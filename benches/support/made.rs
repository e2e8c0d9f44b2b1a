//! Trees that are made, the same ones each time.

use std::fs;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

/// So many files of 200 bytes, two hundred to a directory.
pub fn small_files(tree: PathBuf, count: usize) -> PathBuf {
    for n in 0..count {
        let directory = tree.join(format!("d{:04}", n / 200));
        if n % 200 == 0 {
            fs::create_dir_all(&directory).expect("a directory can be made");
        }
        fs::write(directory.join(format!("f{n}")), format!("{n:0200}")).expect("a file can be written");
    }
    tree
}

/// One file: in each MiB the first half is noise, and the second is words.
pub fn big_file(tree: PathBuf, mebibytes: usize) -> PathBuf {
    let mut random = fastrand::Rng::with_seed(2);
    let words = words(&mut random);
    fs::create_dir_all(&tree).expect("a directory can be made");
    let mut file = BufWriter::new(File::create(tree.join("big")).expect("a file can be made"));
    let mut noise = vec![0; 1 << 19];
    for _ in 0..mebibytes {
        random.fill(&mut noise);
        file.write_all(&noise).expect("a file can be written");
        file.write_all(&text(&mut random, &words, 1 << 19)).expect("a file can be written");
    }
    file.flush().expect("a file can be written");
    tree
}

/// As many trees as there are to be layers, of four files each: two are in each layer, and two are its own.
pub fn thin_layers(parent: &Path, count: usize) -> Vec<PathBuf> {
    let layer = |n: usize| {
        let tree = parent.join(format!("layer-{n}"));
        for path in ["etc/version".to_owned(), "var/log".to_owned(), format!("opt/{n}/a"), format!("opt/{n}/b")] {
            write(&tree.join(path), &format!("{n:0200}").into_bytes());
        }
        tree
    };
    (0..count).map(layer).collect()
}

/// Three layers like those of a small system: many files of words, a hundred others, and noise.
pub fn system(parent: &Path, files: usize, mebibytes: usize) -> Vec<PathBuf> {
    let mut random = fastrand::Rng::with_seed(1);
    let words = words(&mut random);
    let trees = ["base", "more", "noise"].map(|name| parent.join(name));
    for n in 0..files + 100 {
        let tree = if n < files { &trees[0] } else { &trees[1] };
        let content = text(&mut random, &words, n * 7 % 20_000);
        write(&tree.join(format!("usr/share/{:03}/{n}", n / 50)), &content);
    }
    let mut noise = vec![0; mebibytes << 20];
    random.fill(&mut noise);
    write(&trees[2].join("usr/lib/noise"), &noise);
    trees.into()
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory can be made");
    fs::write(path, content).expect("a file can be written");
}

fn words(random: &mut fastrand::Rng) -> Vec<String> {
    (0..2000).map(|_| (0..random.usize(2..12)).map(|_| random.lowercase()).collect()).collect()
}

fn text(random: &mut fastrand::Rng, words: &[String], length: usize) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < length {
        text += &words[random.usize(..words.len())];
        text.push(' ');
    }
    text.truncate(length);
    text.into_bytes()
}
