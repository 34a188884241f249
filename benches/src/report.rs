//! What was measured, as a table, as Markdown, as JSON.

use crate::aims::{FLOOR, Metric, OURS, RUNTIMES, Row};
use crate::program::HERE;
use crate::samples::{Samples, digits};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

/// One row, on all runtimes.
#[derive(Debug)]
pub struct Measured {
    pub row: &'static Row,
    /// By metric and runtime.
    pub samples: BTreeMap<(String, &'static str), Samples>,
    /// Runtimes that failed, and what they said.
    pub failed: Vec<(&'static str, String)>,
}

impl Measured {
    fn samples(&self, metric: &Metric, runtime: &'static str) -> Option<&Samples> {
        self.samples.get(&(metric.name.to_owned(), runtime))
    }

    fn median(&self, metric: &Metric, runtime: &'static str) -> Option<f64> {
        self.samples(metric, runtime)?.median()
    }

    /// The peer that needs least.
    fn best_peer(&self, metric: &Metric) -> Option<(&'static str, f64)> {
        let peers = RUNTIMES.iter().filter(|runtime| ![OURS, FLOOR].contains(runtime));
        let medians = peers.filter_map(|peer| Some((*peer, self.median(metric, peer)?)));
        medians.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Ours, against the best peer, the floor and the aim.
    fn verdict(&self, metric: &Metric) -> Verdict {
        let ours = self.median(metric, OURS);
        let peer = self.best_peer(metric);
        let ratio = |other: Option<f64>| match (ours, other) {
            (Some(ours), Some(other)) if other > 0.0 => digits(ours / other),
            _ => "–".to_owned(),
        };
        Verdict {
            ours: self.samples(metric, OURS).map_or("–".to_owned(), Samples::text),
            best_peer: peer.map_or("–".to_owned(), |(name, median)| format!("{name} {}", digits(median))),
            of_peer: ratio(peer.map(|(_, median)| median)),
            of_floor: ratio(self.median(metric, FLOOR)),
            aim: metric.aim.map_or("–".to_owned(), |aim| format!("≤ {}", digits(aim).trim_end_matches(".00"))),
            met: match (ours, metric.aim) {
                (Some(ours), Some(aim)) => if ours <= aim { "yes" } else { "no" }.to_owned(),
                _ => "–".to_owned(),
            },
        }
    }
}

/// One line of the summary.
struct Verdict {
    ours: String,
    best_peer: String,
    of_peer: String,
    of_floor: String,
    aim: String,
    met: String,
}

/// For the terminal.
pub fn table(measured: &[Measured]) -> String {
    let mut text = String::new();
    for one in measured {
        let _ = writeln!(text, "\n{}: {}", one.row.name, one.row.title);
        for metric in one.row.metrics {
            for runtime in RUNTIMES {
                if let Some(samples) = one.samples(metric, runtime) {
                    let _ = writeln!(text, "  {runtime:20} {} {}", samples.text(), metric.unit);
                }
            }
            let verdict = one.verdict(metric);
            let Verdict { of_peer, best_peer, of_floor, aim, met, .. } = &verdict;
            let _ = writeln!(
                text,
                "  -> {of_peer} x the best peer ({best_peer}), {of_floor} x the floor; aim {aim} {}: {met}",
                metric.unit
            );
        }
        for (runtime, error) in &one.failed {
            let _ = writeln!(text, "  {runtime:20} failed: {error}");
        }
    }
    text
}

/// For RESULTS.md.
pub fn markdown(measured: &[Measured]) -> String {
    let mut text = format!(
        "# Results\n\nWritten by `{}`. Do not edit; run it again. What is measured, and how, is in [README.md](README.md).\n\n",
        command_line()
    );
    for (name, value) in machine() {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push_str("\nMedian [least–most] of the rounds. Less is better.\n\n");
    text.push_str(
        "| | trefoil | best peer | × best peer | × floor | aim | met |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for one in measured {
        for metric in one.row.metrics {
            let Verdict { ours, best_peer, of_peer, of_floor, aim, met } = one.verdict(metric);
            let (title, unit) = (one.row.title, metric.unit);
            let _ =
                writeln!(text, "| {title}, {unit} | {ours} | {best_peer} | {of_peer} | {of_floor} | {aim} | {met} |");
        }
    }
    text.push_str("\n## All runtimes\n\n| |");
    RUNTIMES.iter().for_each(|runtime| text.push_str(&format!(" {runtime} |")));
    text.push_str("\n| --- |");
    RUNTIMES.iter().for_each(|_| text.push_str(" --- |"));
    text.push('\n');
    for one in measured {
        for metric in one.row.metrics {
            let _ = write!(text, "| {}, {} |", one.row.name, metric.unit);
            for runtime in RUNTIMES {
                let failed = one.failed.iter().any(|(name, _)| name == runtime);
                let cell =
                    one.samples(metric, runtime).map_or(if failed { "failed" } else { "–" }.to_owned(), Samples::text);
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
    }
    text
}

/// All samples.
pub fn json(measured: &[Measured]) -> Value {
    let rows = measured.iter().map(|one| {
        let metrics = one.row.metrics.iter().map(|metric| {
            let samples = RUNTIMES
                .iter()
                .filter_map(|runtime| Some(((*runtime).to_owned(), json!(one.samples(metric, runtime)?.all()))));
            json!({
                "metric": metric.name,
                "unit": metric.unit,
                "aim": metric.aim,
                "samples": samples.collect::<serde_json::Map<_, _>>(),
            })
        });
        let failed = one.failed.iter().map(|(runtime, error)| ((*runtime).to_owned(), json!(error)));
        json!({
            "workload": one.row.name,
            "title": one.row.title,
            "metrics": metrics.collect::<Vec<_>>(),
            "failed": failed.collect::<serde_json::Map<_, _>>(),
        })
    });
    let machine = machine().into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
    json!({
        "command": command_line(),
        "machine": machine.collect::<serde_json::Map<_, _>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut line = "cargo run --release -p trefoil-bench".to_owned();
    if !arguments.is_empty() {
        line.push_str(" -- ");
        line.push_str(&arguments.join(" "));
    }
    line
}

/// What the numbers depend on.
fn machine() -> Vec<(&'static str, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let uname = rustix::system::uname();
    let rustc = first_line(Command::new("rustc").arg("--version"));
    let git = first_line(Command::new("git").args(["-C", HERE, "describe", "--always", "--dirty"]));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    vec![
        ("machine", format!("{cores} × {}", model.unwrap_or_else(|| "unknown".into()))),
        ("kernel", format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())),
        ("load average at the end (1 is this program's own)", load),
        ("compiler", format!("{rustc}; opt-level 3, fat LTO, one codegen unit")),
        ("trefoil", git),
        ("peers", versions().join(", ")),
    ]
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

/// The versions of the peers that were built.
fn versions() -> Vec<String> {
    const PEERS: &[&str] = &[
        "tokio",
        "tokio-util",
        "async-executor",
        "async-io",
        "async-channel",
        "futures-util",
        "futures-concurrency",
        "moro",
        "monoio",
        "local-sync",
        "compio",
        "glommio",
    ];
    let lock = fs::read_to_string(format!("{HERE}/runtimes/Cargo.lock")).unwrap_or_default();
    let mut versions = Vec::new();
    for peer in PEERS {
        let entry = lock.split("[[package]]").filter(|entry| entry.contains(&format!("\nname = \"{peer}\"\n")));
        for version in entry.filter_map(|entry| entry.split("version = \"").nth(1)?.split('"').next()) {
            versions.push(format!("{peer} {version}"));
        }
    }
    versions
}
