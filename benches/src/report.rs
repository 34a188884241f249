//! What was measured, for the terminal, and as `RESULTS.md`.

use crate::aims::{Field, SERVED, SPINNING, STRUCTURE};
use crate::measured::{Report, Verdict, yes_or_no};
use crate::notes;
use crate::samples::Samples;
use std::collections::BTreeMap;
use std::fmt::Write;

/// For the terminal.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for one in &report.rows {
        let _ = writeln!(text, "\n{}: {}", one.row.name, one.row.title);
        for metric in one.row.metrics {
            let unit = metric.unit;
            for runtime in one.row.field.runtimes {
                if let Some(samples) = one.samples(metric, runtime) {
                    let _ = writeln!(text, "  {runtime:20} {} {unit}", samples.text());
                }
            }
            if !one.is_judged(metric) {
                continue;
            }
            for verdict in one.verdicts(metric) {
                let Verdict { name, of_peer, best_peer, of_floor, aim, ratio_aim, .. } = &verdict;
                let [met, ratio_met] = [verdict.met, verdict.ratio_met].map(yes_or_no);
                let _ = writeln!(
                    text,
                    "  -> {name}: {of_peer} x the best peer ({best_peer}), {of_floor} x the floor; aim {aim} {unit}: {met}; {ratio_aim} x the best peer: {ratio_met}"
                );
            }
        }
        for (runtime, error) in &one.failed {
            let _ = writeln!(text, "  {runtime:20} failed: {error}");
        }
    }
    text
}

/// For RESULTS.md.
pub fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# Results\n\nWritten by `{}`. Do not edit; run it again. What is measured, and how, is in [README.md](README.md).\n\n",
        report.command
    );
    for (name, value) in &report.machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push_str(
        "\nMedian [least–most] of the rounds. Less is better. An aim was set in the nanoseconds of one machine, beside what the best peer took there; the last two columns \
         are the same as a ratio to the best peer of this run. What is a ratio to raw epoll has one aim.\n\n",
    );
    summary(&mut text, report);
    text.push_str(
        "| | | | best peer | × best peer | × floor | aim | met | aim × best peer | met |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for one in &report.rows {
        for metric in one.row.metrics.iter().filter(|metric| one.is_judged(metric)) {
            for verdict in one.verdicts(metric) {
                let Verdict { name, ours, best_peer, of_peer, of_floor, aim, ratio_aim, .. } = &verdict;
                let (title, unit) = (one.row.title, metric.unit);
                let [met, ratio_met] = [verdict.met, verdict.ratio_met].map(yes_or_no);
                let _ = writeln!(
                    text,
                    "| {title}, {unit} | {name} | {ours} | {best_peer} | {of_peer} | {of_floor} | {aim} | {met} | {ratio_aim} | {ratio_met} |"
                );
            }
        }
    }
    text.push_str("\n## Where an aim is missed\n\n");
    text.push_str("What the time goes to, and what was tried. Written by hand, in [notes.md](notes.md).\n");
    let mut told = BTreeMap::new();
    for one in report.rows.iter().filter(|one| one.missed()) {
        let note = notes::of(one.row.name);
        let _ = write!(text, "\n### {}: {}\n\n", one.row.name, one.row.title);
        let _ = match note.map(|note| (told.insert(note.rows, one.row.name), note)) {
            None => writeln!(text, "Not looked into yet."),
            Some((None, note)) => writeln!(text, "{}", note.text),
            Some((Some(above), _)) => writeln!(text, "As for {above}, above."),
        };
    }
    all_runtimes(&mut text, report, "All runtimes", &STRUCTURE);
    all_runtimes(&mut text, report, "All servers", &SERVED);
    all_runtimes(&mut text, report, "Servers that look before they sleep", &SPINNING);
    failures(&mut text, report);
    text
}

/// How many there are of each kind.
fn summary(text: &mut String, report: &Report) {
    let verdicts: Vec<_> = report
        .rows
        .iter()
        .flat_map(|one| {
            one.row.metrics.iter().filter(|metric| one.is_judged(metric)).flat_map(|metric| one.verdicts(metric))
        })
        .collect();
    let of = |met: fn(&Verdict) -> Option<bool>| {
        let judged: Vec<_> = verdicts.iter().filter_map(met).collect();
        format!("{} of {}", judged.iter().filter(|met| **met).count(), judged.len())
    };
    let _ = writeln!(
        text,
        "Aims that are met: **{}** as they were set, **{}** as ratios to the best peer. Ahead of every peer, or level with the best: **{}**.\n",
        of(|verdict| verdict.met),
        of(|verdict| verdict.ratio_met),
        of(|verdict| verdict.is_level),
    );
}

fn all_runtimes(text: &mut String, report: &Report, title: &str, field: &Field) {
    let rows: Vec<_> = report.rows.iter().filter(|one| one.row.field.runtimes == field.runtimes).collect();
    if rows.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {title}\n\n| |");
    field.runtimes.iter().for_each(|runtime| text.push_str(&format!(" {runtime} |")));
    text.push_str("\n| --- |");
    field.runtimes.iter().for_each(|_| text.push_str(" --- |"));
    text.push('\n');
    for one in rows {
        for metric in one.row.metrics {
            let _ = write!(text, "| {}, {} |", one.row.name, metric.unit);
            for runtime in field.runtimes {
                let failed = one.failed.iter().any(|(name, _)| name == runtime);
                let none = || if failed { "failed" } else { "–" }.to_owned();
                let _ = write!(text, " {} |", one.samples(metric, runtime).map_or_else(none, Samples::text));
            }
            text.push('\n');
        }
    }
}

fn failures(text: &mut String, report: &Report) {
    let failed = report.rows.iter().flat_map(|one| one.failed.iter().map(|failed| (one.row.name, failed)));
    for (at, (row, (runtime, error))) in failed.enumerate() {
        if at == 0 {
            text.push_str("\n## What failed\n\n");
        }
        let _ = writeln!(text, "- {row} on {runtime}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_are_what_was_measured() {
        for (samples, text, names) in [
            (include_str!("../results.json"), include_str!("../RESULTS.md"), ["results.json", "RESULTS.md"]),
            (
                include_str!("../results-epyc.json"),
                include_str!("../RESULTS-epyc.md"),
                ["results-epyc.json", "RESULTS-epyc.md"],
            ),
        ] {
            let report = Report::from_json(samples).unwrap();
            let [from, to] = names;
            let again = format!("cargo run --release -p trefoil-bench -- --from benches/{from} --results benches/{to}");
            assert!(markdown(&report) == text, "{to} is another one: {again}");
        }
    }
}
