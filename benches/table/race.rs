//! Lets several do the same, round by round.

use std::time::Duration;

use super::support::median;
use super::support::process::Run;
use super::support::setting;

/// One time that a job was done.
pub struct Outcome {
    pub run: Run,
    /// What it left behind.
    pub bytes: Option<u64>,
}

/// Who does a job. Only the program that does it is timed, not what is done before and after.
pub struct Contender<'a> {
    name: String,
    job: Box<dyn FnMut(usize) -> Result<Outcome, String> + 'a>,
}

/// What came of one.
pub struct Entry {
    pub name: String,
    runs: Vec<Run>,
    pub bytes: Option<u64>,
}

impl<'a> Contender<'a> {
    /// What is to be done is told the number of the round.
    pub fn new(name: impl Into<String>, job: impl FnMut(usize) -> Result<Outcome, String> + 'a) -> Contender<'a> {
        Contender { name: name.into(), job: Box::new(job) }
    }
}

impl Entry {
    pub fn wall(&self) -> Duration {
        median(self.runs.iter().map(|run| run.wall))
    }

    pub fn memory(&self) -> Option<u64> {
        let seen: Vec<u64> = self.runs.iter().filter_map(|run| run.memory).collect();
        (!seen.is_empty()).then(|| median(seen))
    }

    /// The median of the rounds' ratios.
    pub fn ratio(&self, other: &Entry) -> f64 {
        let pairs = self.runs.iter().zip(&other.runs);
        median(pairs.map(|(ours, theirs)| ours.wall.as_secs_f64() / theirs.wall.as_secs_f64()))
    }
}

/// Who cannot do it in the first round, which warms the caches, is left out; layercake must.
pub fn run(mut contenders: Vec<Contender>) -> Vec<Entry> {
    let mut at = 0;
    contenders.retain_mut(|contender| {
        at += 1;
        match once(contender, 0) {
            Ok(_) => true,
            Err(error) if at == 1 => panic!("{error}"),
            Err(error) => {
                eprintln!("{} is left out: {error}", contender.name);
                false
            }
        }
    });
    let entry = |contender: &Contender| Entry { name: contender.name.clone(), runs: Vec::new(), bytes: None };
    let mut entries: Vec<Entry> = contenders.iter().map(entry).collect();
    for round in 1..=setting("LAYERCAKE_BENCH_RUNS", 5).max(1) {
        for (contender, entry) in contenders.iter_mut().zip(&mut entries) {
            let outcome = once(contender, round).unwrap_or_else(|error| panic!("{error}"));
            entry.runs.push(outcome.run);
            entry.bytes = outcome.bytes;
        }
    }
    entries
}

/// What the one before has written does not slow down this one.
fn once(contender: &mut Contender, round: usize) -> Result<Outcome, String> {
    rustix::fs::sync();
    (contender.job)(round)
}
