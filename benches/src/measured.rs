//! What was measured: in memory, and as JSON, from which the reports can be made again.

use crate::aims::{Aim, Metric, ROWS, Row};
use crate::machine;
use crate::samples::{Samples, digits, printed};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::error::Error;

/// All of it.
#[derive(Debug)]
pub struct Report {
    pub command: String,
    pub machine: Vec<(String, String)>,
    pub rows: Vec<Measured>,
}

/// One row, on all runtimes.
#[derive(Debug)]
pub struct Measured {
    pub row: &'static Row,
    /// By metric and runtime.
    pub samples: BTreeMap<(String, &'static str), Samples>,
    /// Runtimes that failed, and what they said.
    pub failed: Vec<(&'static str, String)>,
}

/// One of ours, against the best peer, the floor and the aim.
pub struct Verdict {
    pub name: &'static str,
    pub ours: String,
    pub best_peer: String,
    pub of_peer: String,
    pub of_floor: String,
    pub aim: String,
    /// None if there is no aim, or nothing was measured.
    pub met: Option<Met>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The number.
    Yes,
    /// It takes too long, but is as far ahead of the best peer as it was to be.
    AsRatio,
    No,
}

impl Verdict {
    pub fn met(&self) -> &'static str {
        match self.met {
            None => "–",
            Some(Met::Yes) => "yes",
            Some(Met::AsRatio) => "as a ratio",
            Some(Met::No) => "no",
        }
    }
}

/// Whether that much meets the aim, where the best peer takes so much.
fn meets(aim: Aim, ours: f64, peer: Option<f64>) -> Met {
    let ratio = peer.filter(|peer| *peer > 0.0).map(|peer| printed(ours / peer));
    match aim.of_peer().zip(ratio) {
        _ if printed(ours) <= aim.at_most => Met::Yes,
        Some((most, ratio)) if ratio <= printed(most) => Met::AsRatio,
        _ => Met::No,
    }
}

fn aim_text(aim: Aim) -> String {
    let text = format!("≤ {}", digits(aim.at_most).trim_end_matches(".00"));
    aim.of_peer().map_or(text.clone(), |of_peer| format!("{text} (× {})", digits(of_peer)))
}

impl Measured {
    pub fn new(row: &'static Row) -> Self {
        Self { row, samples: BTreeMap::new(), failed: Vec::new() }
    }

    pub fn samples(&self, metric: &Metric, runtime: &'static str) -> Option<&Samples> {
        self.samples.get(&(metric.name.to_owned(), runtime))
    }

    fn median(&self, metric: &Metric, runtime: &'static str) -> Option<f64> {
        self.samples(metric, runtime)?.median()
    }

    /// The peer that needs least.
    fn best_peer(&self, metric: &Metric) -> Option<(&'static str, f64)> {
        let peers = self.row.field.runtimes.iter().filter(|runtime| self.row.field.is_peer(runtime));
        let medians = peers.filter_map(|peer| Some((*peer, self.median(metric, peer)?)));
        medians.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// For each of ours.
    pub fn verdicts(&self, metric: &Metric) -> Vec<Verdict> {
        let peer = self.best_peer(metric);
        let verdict = |(at, ours): (usize, &crate::aims::Ours)| {
            let (median, aim) = (self.median(metric, ours.name), metric.aim(at));
            let ratio = |other: Option<f64>| match (median, other) {
                (Some(ours), Some(other)) if other > 0.0 => digits(ours / other),
                _ => "–".to_owned(),
            };
            Verdict {
                name: ours.name,
                ours: self.samples(metric, ours.name).map_or("–".to_owned(), Samples::text),
                best_peer: peer.map_or("–".to_owned(), |(name, median)| format!("{name} {}", digits(median))),
                of_peer: ratio(peer.map(|(_, median)| median)),
                of_floor: ratio(self.median(metric, ours.floor)),
                aim: aim.map_or("–".to_owned(), aim_text),
                met: median.zip(aim).map(|(median, aim)| meets(aim, median, peer.map(|(_, median)| median))),
            }
        };
        self.row.field.ours.iter().enumerate().map(verdict).collect()
    }

    /// The first metric, and all that have an aim: they are compared; the others are there to be read.
    pub fn is_judged(&self, metric: &Metric) -> bool {
        !metric.aims.is_empty() || metric.name == self.row.metrics[0].name
    }

    /// Whether an aim was measured, and missed, be it in nanoseconds alone.
    pub fn missed(&self) -> bool {
        self.row
            .metrics
            .iter()
            .any(|metric| self.verdicts(metric).iter().any(|verdict| verdict.met.is_some_and(|met| met != Met::Yes)))
    }

    fn to_json(&self) -> Value {
        let metrics = self.row.metrics.iter().map(|metric| {
            let samples = self.row.field.runtimes.iter().filter_map(|runtime| {
                let samples = self.samples(metric, runtime)?;
                Some(((*runtime).to_owned(), json!(samples.all())))
            });
            let value = json!({
                "unit": metric.unit,
                "aims": metric.aims.iter().map(|aim| aim.map(|aim| aim.at_most)).collect::<Vec<_>>(),
                "samples": samples.collect::<Map<_, _>>(),
            });
            (metric.name.to_owned(), value)
        });
        let failed = self.failed.iter().map(|(runtime, error)| ((*runtime).to_owned(), json!(error)));
        json!({
            "workload": self.row.name,
            "title": self.row.title,
            "metrics": metrics.collect::<Map<_, _>>(),
            "failed": failed.collect::<Map<_, _>>(),
        })
    }

    /// What is not known (any more) is passed over.
    fn from_json(value: &Value) -> Option<Self> {
        let name = value["workload"].as_str()?;
        let mut measured = Self::new(ROWS.iter().find(|row| row.name == name)?);
        let runtimes = measured.row.field.runtimes;
        for metric in measured.row.metrics {
            for runtime in runtimes {
                let mut samples = Samples::default();
                let all = value["metrics"][metric.name]["samples"][*runtime].as_array();
                all.into_iter().flatten().filter_map(Value::as_f64).for_each(|sample| samples.push(sample));
                if samples.median().is_some() {
                    measured.samples.insert((metric.name.to_owned(), *runtime), samples);
                }
            }
        }
        for runtime in runtimes {
            if let Some(error) = value["failed"][*runtime].as_str() {
                measured.failed.push((*runtime, error.to_owned()));
            }
        }
        Some(measured)
    }
}

impl Report {
    /// Of this command, on this machine.
    pub fn new(rows: Vec<Measured>) -> Self {
        Self { command: machine::command_line(), machine: machine::describe(), rows }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "command": self.command,
            "machine": self.machine,
            "rows": self.rows.iter().map(Measured::to_json).collect::<Vec<_>>(),
        })
    }

    pub fn from_json(text: &str) -> Result<Self, Box<dyn Error>> {
        let value: Value = serde_json::from_str(text)?;
        let rows = value["rows"].as_array().ok_or("no rows: not written by --json")?;
        Ok(Self {
            command: value["command"].as_str().unwrap_or("unknown").to_owned(),
            machine: serde_json::from_value(value["machine"].clone())?,
            rows: rows.iter().filter_map(Measured::from_json).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut measured = Measured::new(ROWS.iter().find(|row| row.name == "echo").unwrap());
        for (runtime, all) in [
            ("trefoil-io_uring", [0.9, 1.1, 1.0]),
            ("trefoil-epoll", [1.03; 3]),
            ("tokio", [1.25; 3]),
            ("raw-epoll", [1.0; 3]),
        ] {
            let samples: &mut Samples = measured.samples.entry(("cpu".to_owned(), runtime)).or_default();
            all.into_iter().for_each(|sample| samples.push(sample));
        }
        measured.failed.push(("glommio", "no memory".to_owned()));
        Report { command: "c".to_owned(), machine: vec![("kernel".to_owned(), "6".to_owned())], rows: vec![measured] }
    }

    #[test]
    fn each_of_ours_is_judged_by_its_own_aim_and_floor() {
        let report = sample();
        let measured = &report.rows[0];
        let verdicts = measured.verdicts(&measured.row.metrics[0]);
        let [on_io_uring, on_epoll] = &verdicts[..] else { panic!("two") };
        assert_eq!((on_io_uring.met, on_epoll.met), (Some(Met::Yes), Some(Met::No)));
        assert_eq!((on_io_uring.of_floor.as_str(), on_epoll.of_floor.as_str()), ("–", "1.03"));
        assert_eq!((on_io_uring.of_peer.as_str(), on_io_uring.best_peer.as_str()), ("0.80", "tokio 1.25"));
        assert!(measured.missed());
    }

    #[test]
    fn on_a_slower_machine_an_aim_is_a_part_of_what_the_best_peer_takes() {
        let aim = Aim { at_most: 80.0, beside: Some(100.0) };
        assert_eq!(aim_text(aim), "≤ 80.0 (× 0.80)");
        let met = [(80.04, None), (80.1, None), (200.0, Some(250.0)), (200.0, Some(246.0)), (79.0, Some(1.0))];
        assert_eq!(
            met.map(|(ours, peer)| meets(aim, ours, peer)),
            [Met::Yes, Met::No, Met::AsRatio, Met::No, Met::Yes]
        );
        let ratio = Aim { at_most: 1.0, beside: None };
        assert_eq!((aim_text(ratio).as_str(), meets(ratio, 1.01, Some(5.0))), ("≤ 1", Met::No));
    }

    #[test]
    fn a_report_comes_back_from_json() {
        let report = sample();
        let text = report.to_json().to_string();
        let back = Report::from_json(&text).unwrap();
        assert_eq!(back.to_json().to_string(), text);
        assert!(Report::from_json("{}").is_err());
    }
}
