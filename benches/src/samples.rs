//! Numbers of several rounds.

/// What was measured in each round.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// None before the first round.
    pub fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(self.0[middle]),
            _ => Some((self.0[middle - 1] + self.0[middle]) / 2.0),
        }
    }

    /// In order of size.
    pub fn all(&self) -> &[f64] {
        &self.0
    }

    pub fn least(&self) -> Option<f64> {
        self.0.first().copied()
    }

    pub fn most(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// `median [least–most]`, with three digits that mean something.
    pub fn text(&self) -> String {
        match (self.median(), self.least(), self.most()) {
            (Some(median), Some(least), Some(most)) => {
                format!("{} [{}–{}]", digits(median), digits(least), digits(most))
            }
            _ => "–".to_owned(),
        }
    }
}

/// Three digits that mean something.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        let digits = format!("{:.0}", value.abs());
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        if value < 0.0 { format!("-{text}") } else { text }
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The number that `digits` shows: whether an aim is met should not depend on digits that mean nothing.
pub fn printed(value: f64) -> f64 {
    let scale = match value.abs() {
        100.0.. => 1.0,
        10.0.. => 10.0,
        _ => 100.0,
    };
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let mut samples = Samples::default();
        assert_eq!((samples.median(), samples.text().as_str()), (None, "–"));
        for value in [9.0, 1.0, 5.0] {
            samples.push(value);
        }
        assert_eq!((samples.least(), samples.median(), samples.most()), (Some(1.0), Some(5.0), Some(9.0)));
        samples.push(6.0);
        assert_eq!(samples.median(), Some(5.5));
        assert_eq!(samples.text(), "5.50 [1.00–9.00]");
    }

    #[test]
    fn three_digits_mean_something() {
        let texts = [0.123, 12.34, 123.4, 1_234.5, 1_234_567.0, -41_000.0].map(digits);
        assert_eq!(texts, ["0.12", "12.3", "123", "1,234", "1,234,567", "-41,000"]);
        assert_eq!([1.004, 1.006, 25.04, 25.06, 600.4].map(printed), [1.0, 1.01, 25.0, 25.1, 600.0]);
    }
}
