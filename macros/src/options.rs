//! What is in the brackets of an attribute.

use proc_macro2::{Span, TokenStream};
use std::str::FromStr;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, Lit, Token, ext::IdentExt};

/// A driver that can be forced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Driver {
    IoUring,
    Epoll,
}

/// The options that were given, and where.
#[derive(Debug, Default)]
pub struct Options {
    pub seed: Option<(u64, Span)>,
    pub seeds: Option<(u64, Span)>,
    pub real: Option<((), Span)>,
    pub driver: Option<(Driver, Span)>,
    pub ring_entries: Option<(u32, Span)>,
}

impl Options {
    /// `allowed` are the names of those that the attribute has.
    pub fn parse(tokens: TokenStream, attribute: &str, allowed: &[&str]) -> Result<Self, Error> {
        let parser = |input: ParseStream<'_>| {
            let mut options = Self::default();
            while !input.is_empty() {
                options.option(input, attribute, allowed)?;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(options)
        };
        let options = parser.parse2(tokens)?;
        options.check()?;
        Ok(options)
    }

    fn option(&mut self, input: ParseStream<'_>, attribute: &str, allowed: &[&str]) -> Result<(), Error> {
        let name = Ident::parse_any(input)?;
        let value = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            Some(input.parse::<Lit>()?)
        } else {
            None
        };
        let (text, span) = (name.to_string(), name.span());
        match text.as_str() {
            _ if !allowed.contains(&text.as_str()) => {
                let all: Vec<_> = allowed.iter().map(|name| format!("`{name}`")).collect();
                let (last, first) = all.split_last().expect("each has some");
                let all = format!("{} and {last}", first.join(", "));
                Err(Error::new(span, format!("there is no option `{text}`: `#[trefoil::{attribute}]` has {all}")))
            }
            "seed" => set(&mut self.seed, number(value, "seed = 7", span)?, "seed", span),
            "seeds" => set(&mut self.seeds, number(value, "seeds = 100", span)?, "seeds", span),
            "ring_entries" => {
                set(&mut self.ring_entries, number(value, "ring_entries = 64", span)?, "ring_entries", span)
            }
            "driver" => set(&mut self.driver, driver(value, span)?, "driver", span),
            "real" if value.is_none() => set(&mut self.real, (), "real", span),
            _ => Err(Error::new(span, format!("`{text}` has no value"))),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let seed = self.seed.map(|(_, span)| ("seed", span));
        let seeds = self.seeds.map(|(_, span)| ("seeds", span));
        if let (Some(_), Some((_, span))) = (seed, seeds) {
            return Err(Error::new(span, "`seed` and `seeds` do not go together: one order, or several"));
        }
        let real = self.real.map(|_| "real").or(self.driver.map(|_| "driver"));
        if let (Some(real), Some((by_seed, span))) = (real, seed.or(seeds)) {
            return Err(Error::new(
                span,
                format!("`{real}` and `{by_seed}` do not go together: an order by seed comes with virtual time"),
            ));
        }
        match self.seeds {
            Some((0, span)) => Err(Error::new(span, "`seeds` is how many times the test is run: 1 at least")),
            _ => Ok(()),
        }
    }
}

fn set<T>(option: &mut Option<(T, Span)>, value: T, name: &str, span: Span) -> Result<(), Error> {
    match option.replace((value, span)) {
        None => Ok(()),
        Some(_) => Err(Error::new(span, format!("`{name}` is given twice"))),
    }
}

fn number<T: FromStr<Err: std::fmt::Display>>(value: Option<Lit>, like: &str, span: Span) -> Result<T, Error> {
    match value {
        Some(Lit::Int(number)) => number.base10_parse(),
        value => {
            let name = like.split_once(' ').map_or(like, |(name, _)| name);
            let span = value.map_or(span, |value| value.span());
            Err(Error::new(span, format!("`{name}` has a value: `{like}`")))
        }
    }
}

fn driver(value: Option<Lit>, span: Span) -> Result<Driver, Error> {
    let Some(Lit::Str(text)) = value else {
        return Err(Error::new(span, r#"`driver` has a value: `driver = "epoll"`"#));
    };
    match text.value().as_str() {
        "io_uring" => Ok(Driver::IoUring),
        "epoll" => Ok(Driver::Epoll),
        other => {
            Err(Error::new(text.span(), format!(r#"there is no driver {other:?}: `"io_uring"` and `"epoll"` are"#)))
        }
    }
}
