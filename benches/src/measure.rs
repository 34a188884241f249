//! Starts the processes, in turn, and keeps what they say.

use crate::aims::{Field, Row};
use crate::measured::Measured;
use crate::program;
use crate::{Options, samples::Samples};
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::path::Path;
use std::process::Command;

/// A server or its load that waited for its core so much of the time was disturbed by other programs: it is measured again, twice at most.
const DISTURBED: f64 = 0.05;

type Metrics = Vec<(String, f64)>;

/// All rounds of all rows.
pub fn all(program: &Path, options: &Options) -> Result<Vec<Measured>, Box<dyn Error>> {
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 }).max(1);
    let runtimes = |field: &Field| -> Vec<&'static str> {
        let chosen = |name: &&&str| options.only.is_empty() || options.only.iter().any(|only| only == **name);
        field.runtimes.iter().filter(chosen).copied().collect()
    };
    let length: usize = options.rows.iter().map(|row| rounds * runtimes(row.field).len()).sum();
    let bar = ProgressBar::new(length as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {elapsed}, {eta} left")?);
    let mut all = Vec::new();
    for row in &options.rows {
        // Who has nothing of the kind, or failed, is left out after the first round.
        let mut runtimes = runtimes(row.field);
        let mut measured = Measured::new(row);
        for round in 0..rounds {
            let mut stay = Vec::new();
            for runtime in &runtimes {
                bar.set_message(format!("{} on {runtime}", row.name));
                match one(program, row, runtime, options) {
                    Ok(None) => {}
                    Ok(Some(metrics)) => {
                        stay.push(*runtime);
                        for (metric, value) in metrics {
                            let samples: &mut Samples = measured.samples.entry((metric, *runtime)).or_default();
                            samples.push(value);
                        }
                    }
                    Err(error) => measured.failed.push((runtime, error)),
                }
                bar.inc(if stay.last() == Some(runtime) { 1 } else { (rounds - round) as u64 });
            }
            runtimes = stay;
        }
        all.push(measured);
    }
    bar.finish_and_clear();
    Ok(all)
}

/// One round of one runtime; with its pair just before, where there is one.
fn one(program: &Path, row: &Row, runtime: &str, options: &Options) -> Result<Option<Metrics>, String> {
    let Some(pair) = row.field.pair else {
        return process(program, row, runtime, options);
    };
    let mut again = if options.quick { 0 } else { 2 };
    loop {
        let pair = process(program, row, pair, options)?.ok_or("there is no pair")?;
        let Some(mut metrics) = process(program, row, runtime, options)? else {
            return Ok(None);
        };
        let disturbed = [&pair, &metrics].iter().any(|run| value(run, "waited").is_some_and(|part| part > DISTURBED));
        if disturbed && again > 0 {
            again -= 1;
            continue;
        }
        for metric in row.metrics {
            if let Some(of) = metric.of
                && let (Some(ours), Some(other)) = (value(&metrics, of), value(&pair, of))
            {
                metrics.push((metric.name.to_owned(), ours / other));
            }
        }
        return Ok(Some(metrics));
    }
}

fn value(metrics: &Metrics, name: &str) -> Option<f64> {
    metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value)
}

fn process(program: &Path, row: &Row, runtime: &str, options: &Options) -> Result<Option<Metrics>, String> {
    let (workload, sizes) = row.args.split_first().ok_or("a row without a workload")?;
    let mut command = Command::new(program);
    command.args([workload, runtime]).args(sizes);
    if options.quick {
        command.arg("--quick");
    }
    if let Some(core) = options.core {
        command.args(["--core", &core.to_string()]);
    }
    program::run(&mut command)
}
