//! A bar chart for each workload: the median of each runtime, with the least and the most. The same samples give the same file.

use crate::measured::{Measured, Report};
use crate::samples::digits;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const WIDTH: u32 = 760;
const BAR: u32 = 26;
const OURS: RGBColor = RGBColor(46, 125, 50);
const PEER: RGBColor = RGBColor(120, 144, 156);
const FLOOR: RGBColor = RGBColor(207, 190, 150);

/// Writes `NAME.svg` for each row, and `all.md` that shows all of them.
pub fn write(report: &Report, into: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(into)?;
    let mut list = String::new();
    for one in &report.rows {
        if let Some(svg) = chart(one)? {
            fs::write(into.join(format!("{}.svg", one.row.name)), svg)?;
            let (name, title) = (one.row.name, one.row.title);
            let _ = writeln!(list, "![{title}]({}/{name}.svg)\n", directory(into));
        }
    }
    fs::write(into.join("all.md"), list)?;
    Ok(())
}

/// As seen from the page that includes the list, which is beside the directory.
fn directory(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

struct Bar {
    name: &'static str,
    color: RGBColor,
    median: f64,
    least: f64,
    most: f64,
}

/// The first metric of a row. None if nothing was measured.
fn chart(one: &Measured) -> Result<Option<String>, Box<dyn Error>> {
    let (metric, field) = (&one.row.metrics[0], one.row.field);
    let bars: Vec<Bar> = field
        .runtimes
        .iter()
        .filter_map(|name| {
            let samples = one.samples(metric, name)?;
            let ours = field.ours.iter().any(|ours| ours.name == *name);
            let color = if ours {
                OURS
            } else if field.is_peer(name) {
                PEER
            } else {
                FLOOR
            };
            Some(Bar { name, color, median: samples.median()?, least: samples.least()?, most: samples.most()? })
        })
        .collect();
    let most = bars.iter().map(|bar| bar.median).fold(0.0, f64::max) * 1.05;
    if most <= 0.0 {
        return Ok(None);
    }
    let height = 70 + BAR * bars.len() as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let font = ("sans-serif", 15).into_font();
        let title = ("sans-serif", 19).into_font().color(&BLACK);
        area.draw_text(&format!("{}: {}", one.row.title, metric.unit), &title, (12, 12))?;
        let (left, right) = (150, WIDTH as i32 - 170);
        let x = |value: f64| left + ((value.min(most) / most) * f64::from(right - left)) as i32;
        for (at, bar) in bars.iter().enumerate() {
            let top = 40 + (at as u32 * BAR) as i32;
            let middle = top + BAR as i32 / 2 - 2;
            let label = font.color(&BLACK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw_text(bar.name, &label, (left - 8, middle))?;
            let corners = [(left, top), (x(bar.median), top + BAR as i32 - 5)];
            area.draw(&Rectangle::new(corners, bar.color.filled()))?;
            area.draw(&PathElement::new([(x(bar.least), middle), (x(bar.most), middle)], BLACK))?;
            for end in [bar.least, bar.most] {
                area.draw(&PathElement::new([(x(end), middle - 4), (x(end), middle + 4)], BLACK))?;
            }
            let value = font.color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
            let text = format!("{} [{}–{}]", digits(bar.median), digits(bar.least), digits(bar.most));
            area.draw_text(&text, &value, (x(bar.median.max(bar.most)) + 8, middle))?;
        }
        if let Some(aim) = metric.aim(0).map(|aim| aim.at_most).filter(|aim| *aim <= most) {
            let bottom = 40 + (bars.len() as u32 * BAR) as i32;
            area.draw(&PathElement::new([(x(aim), 36), (x(aim), bottom)], RED))?;
            let label = font.color(&RED).pos(Pos::new(HPos::Center, VPos::Top));
            area.draw_text(&format!("aim {}", digits(aim)), &label, (x(aim), bottom + 4))?;
        }
        area.present()?;
    }
    Ok(Some(svg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aims::ROWS;
    use crate::samples::Samples;

    #[test]
    fn the_same_samples_give_the_same_chart() {
        let measured = |median: f64| {
            let mut measured = Measured::new(&ROWS[0]);
            let samples: &mut Samples = measured.samples.entry(("ns".to_owned(), "trefoil")).or_default();
            [median - 1.0, median, median + 1.0].into_iter().for_each(|sample| samples.push(sample));
            chart(&measured).unwrap().unwrap()
        };
        assert_eq!(measured(20.0), measured(20.0));
        assert_ne!(measured(20.0), measured(21.0));
        assert!(measured(20.0).contains("20.0 [19.0–21.0]"));
        assert!(chart(&Measured::new(&ROWS[0])).unwrap().is_none());
    }
}
