//! A server whose answers a test writes itself: for what no registry should do.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

/// What was asked: the method, the path with its query, and how many bytes came along.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub length: u64,
}

/// A server on loopback. Its threads end with the tests.
pub struct Scripted {
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Answers each request with what `answer` makes of it: a status and headers.
    pub fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Scripted {
        Scripted::speaking(move |asked, mut connection| {
            let (status, mut headers) = answer(asked);
            if !headers.to_ascii_lowercase().contains("content-length") {
                headers.push_str("content-length: 0\r\n");
            }
            connection.write_all(format!("HTTP/1.1 {status} x\r\n{headers}\r\n").as_bytes())
        })
    }

    /// Answers each request with what `speak` writes, down to the last byte. An error hangs up.
    pub fn speaking(speak: impl Fn(&Asked, &TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, speak) = (Arc::clone(&asked), Arc::new(speak));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (log, speak) = (Arc::clone(&log), Arc::clone(&speak));
                std::thread::spawn(move || converse(&connection, &log, &*speak));
            }
        });
        Scripted { host, asked }
    }

    pub fn count(&self, method: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.method == method).count()
    }

    /// How many bytes came in all.
    pub fn received(&self) -> u64 {
        self.asked.lock().unwrap().iter().map(|asked| asked.length).sum()
    }
}

fn converse(
    connection: &TcpStream,
    log: &Mutex<Vec<Asked>>,
    speak: &dyn Fn(&Asked, &TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(text) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
        }
        let length = io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        let asked = Asked { method, path, length };
        log.lock().unwrap().push(asked.clone());
        speak(&asked, connection)?;
    }
}
