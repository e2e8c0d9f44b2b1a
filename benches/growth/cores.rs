//! What a second core is worth.

use super::is_possible;
use super::jobs::JOBS;
use super::jobs::Job;
use super::print::memory;
use super::print::seconds;
use super::print::time;
use super::rounds;
use super::subject::Series;
use super::subject::Subject;
use super::support::installed;
use super::support::median;
use super::support::scratch::Scratch;

/// Each job at its largest, with one core and with two.
pub fn compare(scratch: &Scratch) {
    if !installed("taskset") || std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        eprintln!("one core and two are not compared: needs taskset, and two cores");
        return;
    }
    println!("\n| job | of | one core | two cores | speed-up | MiB, one core | MiB, two cores |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for series in [Series::Files, Series::Bytes] {
        let subject = Subject::make(series, series.units(16), scratch);
        let jobs = JOBS.iter().filter(|job| job.series == series && is_possible(job));
        jobs.for_each(|job| row(job, series, &subject));
    }
}

fn row(job: &Job, series: Series, subject: &Subject) {
    let [one, two] = rounds(["0", "0,1"].map(|cores| move || (job.run)(subject, Some(cores))));
    let pairs = one.iter().zip(&two);
    let speed_up = median(pairs.map(|(one, two)| one.wall.as_secs_f64() / two.wall.as_secs_f64()));
    print!(
        "| {} | {} {} | {} | {} ",
        job.name,
        subject.units,
        series.plural(),
        time(seconds(&one)),
        time(seconds(&two))
    );
    println!("| {speed_up:.2} | {} | {} |", memory(&one), memory(&two));
}
