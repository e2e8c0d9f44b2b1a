//! Input of which two readers could make two things (P13): odd tar streams and odd documents are made from a seed, and what
//! this crate accepts is compared with what other readers make of it. Refusing more than they do is allowed.
//!
//! `LAYERCAKE_DIFFERENTIAL_SECONDS` says how long each test runs (2), `LAYERCAKE_DIFFERENTIAL_SEED` where it starts (1).

mod json;
mod tar;

use std::io::Read;
use std::io::Write;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use crate::support::model::Random;

/// The time and the seed of a run.
struct Run {
    end: Instant,
    seed: u64,
}

impl Run {
    fn new() -> Run {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seconds = number("LAYERCAKE_DIFFERENTIAL_SECONDS").unwrap_or(2);
        let seed = number("LAYERCAKE_DIFFERENTIAL_SEED").unwrap_or(1);
        Run { end: Instant::now() + Duration::from_secs(seconds), seed }
    }

    /// The next source of random numbers, while there is time. Every run makes some inputs, however slow the machine is.
    fn next(&mut self, made: u64) -> Option<Random> {
        if made >= 200 && Instant::now() >= self.end {
            return None;
        }
        self.seed += 1;
        Some(Random(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// Whether an event of one in `n` happens.
fn one_in(random: &mut Random, n: usize) -> bool {
    random.below(n) == 0
}

/// A program that reads inputs and writes answers, each behind its length in four bytes.
struct Reader {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Reader {
    fn python(script: &str) -> Reader {
        let script = format!("{PROTOCOL}\n{script}\nserve(answer)\n");
        Reader::start(Command::new("python3").args(["-c", &script]))
    }

    fn start(command: &mut Command) -> Reader {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let (to, from) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        Reader { child, to, from }
    }

    fn ask(&mut self, input: &[u8]) -> String {
        let length = u32::try_from(input.len()).expect("inputs are small").to_be_bytes();
        self.to.write_all(&[&length, input].concat()).expect("the program reads");
        let mut length = [0; 4];
        self.from.read_exact(&mut length).expect("the program answers");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.from.read_exact(&mut answer).expect("the program answers");
        String::from_utf8(answer).expect("answers are text")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROTOCOL: &str = r#"
import io, json, math, struct, sys, tarfile
def serve(answer):
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        length = source.read(4)
        if len(length) < 4: return
        try: text = answer(source.read(struct.unpack(">I", length)[0]))
        except Exception as error: text = "error %s %s" % (type(error).__name__, str(error).encode("ascii", "replace").decode())
        text = text.encode()
        sink.write(struct.pack(">I", len(text)) + text); sink.flush()
"#;
