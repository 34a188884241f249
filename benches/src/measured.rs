//! What was measured: in memory, and as JSON, from which the reports can be made again.

use crate::aims::{Metric, ROWS, Row};
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
    pub met: Option<bool>,
    /// The aim as a part of what the best peer takes.
    pub ratio_aim: String,
    /// The same of that.
    pub ratio_met: Option<bool>,
    /// Whether no peer takes less, as far as is printed.
    pub is_level: Option<bool>,
}

impl Verdict {
    /// Whether an aim was missed, be it in one of the two.
    pub fn is_missed(&self) -> bool {
        self.met == Some(false) || self.ratio_met == Some(false)
    }
}

/// For people.
pub fn yes_or_no(met: Option<bool>) -> &'static str {
    met.map_or("–", |met| if met { "yes" } else { "no" })
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
            let ratio_aim = aim.and_then(|aim| aim.of_peer());
            let of_peer = median.zip(peer).filter(|(_, (_, peer))| *peer > 0.0).map(|(ours, (_, peer))| ours / peer);
            let text = |aim: Option<f64>| {
                aim.map_or("–".to_owned(), |aim| format!("≤ {}", digits(aim).trim_end_matches(".00")))
            };
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
                aim: text(aim.map(|aim| aim.at_most)),
                met: median.zip(aim).map(|(median, aim)| printed(median) <= aim.at_most),
                ratio_aim: text(ratio_aim),
                is_level: of_peer.map(|ratio| printed(ratio) <= 1.0),
                ratio_met: of_peer.zip(ratio_aim).map(|(ratio, most)| printed(ratio) <= printed(most)),
            }
        };
        self.row.field.ours.iter().enumerate().map(verdict).collect()
    }

    /// The first metric, and all that have an aim: they are compared; the others are there to be read.
    pub fn is_judged(&self, metric: &Metric) -> bool {
        !metric.aims.is_empty() || metric.name == self.row.metrics[0].name
    }

    /// Whether an aim was measured, and missed.
    pub fn missed(&self) -> bool {
        self.row.metrics.iter().any(|metric| self.verdicts(metric).iter().any(|verdict| verdict.is_missed()))
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

    /// What was asked for, and nothing else. Who is `only` is all, if there is nobody.
    pub fn keep(&mut self, rows: &[&'static Row], only: &[String]) {
        self.rows.retain(|one| rows.iter().any(|row| row.name == one.row.name));
        let is_kept = |runtime: &str| only.is_empty() || only.iter().any(|name| name == runtime);
        for one in &mut self.rows {
            one.samples.retain(|(_, runtime), _| is_kept(runtime));
            one.failed.retain(|(runtime, _)| is_kept(runtime));
        }
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
        assert_eq!((on_io_uring.met, on_epoll.met), (Some(true), Some(false)));
        assert_eq!((on_io_uring.of_floor.as_str(), on_epoll.of_floor.as_str()), ("–", "1.03"));
        assert_eq!((on_io_uring.of_peer.as_str(), on_io_uring.best_peer.as_str()), ("0.80", "tokio 1.25"));
        assert!(measured.missed());
    }

    #[test]
    fn an_aim_is_judged_in_nanoseconds_and_beside_the_best_peer() {
        let row = ROWS.iter().find(|row| row.name == "channel").unwrap();
        let verdict = |ours: f64, glommio: f64| {
            let mut measured = Measured::new(row);
            for (runtime, value) in [("trefoil", ours), ("glommio", glommio), ("tokio", 1_000.0)] {
                measured.samples.entry(("ns".to_owned(), runtime)).or_default().push(value);
            }
            let verdict = measured.verdicts(&row.metrics[0]).pop().unwrap();
            assert_eq!((verdict.aim.as_str(), verdict.ratio_aim.as_str()), ("≤ 80.0", "≤ 0.69"));
            (verdict.met, verdict.ratio_met, measured.missed())
        };
        assert_eq!(verdict(80.0, 200.0), (Some(true), Some(true), false));
        assert_eq!(verdict(80.1, 200.0), (Some(false), Some(true), true), "a slower machine");
        assert_eq!(verdict(40.0, 50.0), (Some(true), Some(false), true), "a faster one");
    }

    #[test]
    fn who_is_measured_as_the_pair_is_no_peer() {
        for row in ROWS {
            for runtime in row.field.pair.iter().chain(row.field.ours.iter().flat_map(|ours| [&ours.name, &ours.floor]))
            {
                assert!(!row.field.is_peer(runtime), "{runtime} in {}", row.name);
            }
        }
    }

    #[test]
    fn a_report_comes_back_from_json() {
        let report = sample();
        let text = report.to_json().to_string();
        let back = Report::from_json(&text).unwrap();
        assert_eq!(back.to_json().to_string(), text);
        assert!(Report::from_json("{}").is_err());
    }

    #[test]
    fn of_a_report_what_was_asked_for_is_kept() {
        let row = |name| ROWS.iter().find(|row| row.name == name).unwrap();
        let mut report = sample();
        report.keep(&[row("turn"), row("echo")], &["tokio".to_owned()]);
        let [echo] = &report.rows[..] else { panic!("one") };
        assert_eq!(echo.samples.keys().map(|(_, runtime)| *runtime).collect::<Vec<_>>(), ["tokio"]);
        report.keep(&[row("turn")], &[]);
        assert!(report.rows.is_empty());
    }
}
