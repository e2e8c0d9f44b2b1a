//! A client that sends what it is told.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// A connection to a server, which is used for one request after the other.
pub struct Http(BufReader<TcpStream>);

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Http {
    #[track_caller]
    pub fn connect(host: &str) -> Http {
        let connection = TcpStream::connect(host).expect("the server listens");
        connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit can be set");
        connection.set_nodelay(true).expect("the option is known");
        Http(BufReader::new(connection))
    }

    /// Sends a request with a body of known length.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.head(method, path, headers);
        self.raw(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        self.raw(body);
        self.receive(method)
    }

    pub fn ask(&mut self, method: &str, path: &str) -> Reply {
        self.send(method, path, &[], b"")
    }

    /// Sends a request with a body whose length is not said before.
    pub fn send_chunked(&mut self, method: &str, path: &str, headers: &[(&str, &str)], chunks: &[&[u8]]) -> Reply {
        self.head(method, path, headers);
        self.raw(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in chunks {
            self.raw(format!("{:x}\r\n", chunk.len()).as_bytes());
            self.raw(chunk);
            self.raw(b"\r\n");
        }
        self.raw(b"0\r\n\r\n");
        self.receive(method)
    }

    /// The first lines of a request.
    pub fn head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: registry\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.raw(head.as_bytes());
    }

    /// That the server has hung up shows when its answer is read.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    pub fn receive(&mut self, method: &str) -> Reply {
        self.try_receive(method).expect("the server answers")
    }

    pub fn try_receive(&mut self, method: &str) -> std::io::Result<Reply> {
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
        let mut reply = Reply { status, headers: Vec::new(), body: Vec::new() };
        while let Some((name, value)) = self.line()?.split_once(": ") {
            reply.headers.push((name.to_lowercase(), value.to_owned()));
        }
        let length = reply.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if method != "HEAD" {
            reply.body.resize(length, 0);
            self.0.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn location(&self) -> &str {
        self.header("location").unwrap_or_else(|| panic!("no Location in {self:?}"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the server refused with this status and this code of the protocol (D28).
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["errors"][0]["code"].as_str()), (status, Some(code)), "{self:?}");
    }

    /// The same, if it has this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{self:?}, {}", String::from_utf8_lossy(&self.body));
        self
    }
}
