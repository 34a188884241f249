//! The attributes `#[trefoil::main]` and `#[trefoil::test]`. Users name them by way of the crate `trefoil`, where they are documented.

mod options;

use options::{Driver, Options};
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, ReturnType};

#[allow(missing_docs)] // where it is re-exported
#[proc_macro_attribute]
pub fn main(options: proc_macro::TokenStream, function: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(expand_main, options, function)
}

#[allow(missing_docs)] // where it is re-exported
#[proc_macro_attribute]
pub fn test(options: proc_macro::TokenStream, function: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(expand_test, options, function)
}

type Expand = fn(TokenStream, TokenStream) -> Result<TokenStream, Error>;

fn expand(
    with: Expand,
    options: proc_macro::TokenStream,
    function: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    with(options.into(), function.into()).unwrap_or_else(Error::into_compile_error).into()
}

/// `async fn main() { .. }` becomes a function that runs it.
fn expand_main(options: TokenStream, function: TokenStream) -> Result<TokenStream, Error> {
    let options = Options::parse(options, "main", &["driver", "ring_entries"])?;
    let function = check(function, "main")?;
    let driver = options.driver.map(|(driver, _)| driver_kind(driver)).map(|kind| quote!(.driver(#kind)));
    let entries = options.ring_entries.map(|(entries, _)| quote!(.ring_entries(#entries)));
    let ItemFn { attrs, vis, sig, block, .. } = &function;
    let (name, output) = (&sig.ident, &sig.output);
    Ok(quote! {
        #(#attrs)*
        #vis fn #name() #output {
            #sig #block
            ::trefoil::Builder::new() #driver #entries .run(#name())
        }
    })
}

/// `async fn name() { .. }` becomes a test that runs it.
fn expand_test(options: TokenStream, function: TokenStream) -> Result<TokenStream, Error> {
    let options = Options::parse(options, "test", &["seed", "seeds", "real", "driver"])?;
    let function = check(function, "test")?;
    if let Some(attribute) = function.attrs.iter().find(|attribute| attribute.path().is_ident("test")) {
        return Err(Error::new(attribute.span(), "`#[trefoil::test]` makes it a test: take this `#[test]` away"));
    }
    let ItemFn { attrs, vis, sig, block, .. } = &function;
    let name = &sig.ident;
    // Where a type is that is no verdict on a test.
    let output = match &sig.output {
        ReturnType::Default => name.span(),
        ReturnType::Type(_, output) => output.span(),
    };
    let run = if options.real.is_some() || options.driver.is_some() {
        let kind = match options.driver {
            Some((driver, _)) => {
                let kind = driver_kind(driver);
                quote!(::core::option::Option::Some(#kind))
            }
            None => quote!(::core::option::Option::None),
        };
        quote_spanned!(output=> ::trefoil::__private::real_test(#kind, #name);)
    } else if let Some((seeds, _)) = options.seeds {
        quote_spanned!(output=> ::trefoil::testing::seeds(0..#seeds, #name);)
    } else {
        let seed = options.seed.map_or(0, |(seed, _)| seed);
        quote_spanned!(output=> ::trefoil::testing::seeds([#seed], #name);)
    };
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        #vis fn #name() {
            #sig #block
            let _harness = ::trefoil::__private::in_harness();
            #run
        }
    })
}

/// The function, if it is one that can be run.
fn check(function: TokenStream, attribute: &str) -> Result<ItemFn, Error> {
    let wrong = |span: Span, what: &str| Err(Error::new(span, format!("`#[trefoil::{attribute}]` {what}")));
    let all = function.span();
    let Ok(function) = syn::parse2::<ItemFn>(function) else {
        return wrong(all, "is for a function: `async fn name() { .. }`");
    };
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        return wrong(sig.fn_token.span, "is for an `async fn`: write `async` before this `fn`");
    }
    if !sig.inputs.is_empty() {
        return wrong(sig.inputs.span(), "calls the function, and has no arguments for it");
    }
    if !sig.generics.params.is_empty() {
        return wrong(sig.generics.span(), "calls the function, which cannot be generic");
    }
    Ok(function)
}

fn driver_kind(driver: Driver) -> TokenStream {
    match driver {
        Driver::IoUring => quote!(::trefoil::DriverKind::IoUring),
        Driver::Epoll => quote!(::trefoil::DriverKind::Epoll),
    }
}

#[cfg(test)]
mod tests {
    use super::{Expand, expand_main, expand_test};

    /// What the compiler says.
    fn error(with: Expand, options: &str, function: &str) -> String {
        with(options.parse().unwrap(), function.parse().unwrap()).expect_err("it was to be refused").to_string()
    }

    #[test]
    fn what_they_stand_before() {
        for (with, name) in [(expand_main as Expand, "main"), (expand_test, "test")] {
            let told = |function: &str| error(with, "", function);
            assert_eq!(
                told("struct Clover;"),
                format!("`#[trefoil::{name}]` is for a function: `async fn name() {{ .. }}`")
            );
            assert!(told("fn f() {}").ends_with("is for an `async fn`: write `async` before this `fn`"));
            assert!(told("async fn f(x: u8) {}").ends_with("has no arguments for it"));
            assert!(told("async fn f<T>() {}").ends_with("cannot be generic"));
        }
        assert!(error(expand_test, "", "#[test] async fn f() {}").ends_with("take this `#[test]` away"));
    }

    #[test]
    fn options_that_are_none() {
        for (options, told) in [
            ("clover", "there is no option `clover`: `#[trefoil::test]` has `seed`, `seeds`, `real` and `driver`"),
            ("seed = 1, seed = 2", "`seed` is given twice"),
            ("seed = 1, seeds = 2", "`seed` and `seeds` do not go together: one order, or several"),
            ("real, seeds = 2", "`real` and `seeds` do not go together: an order by seed comes with virtual time"),
            ("seed = 1, real", "`real` and `seed` do not go together: an order by seed comes with virtual time"),
            (
                r#"seed = 1, driver = "epoll""#,
                "`driver` and `seed` do not go together: an order by seed comes with virtual time",
            ),
            ("seeds = 0", "`seeds` is how many times the test is run: 1 at least"),
            ("seeds", "`seeds` has a value: `seeds = 100`"),
            ("seed = true", "`seed` has a value: `seed = 7`"),
            ("real = 7", "`real` has no value"),
            (r#"driver = "kqueue""#, r#"there is no driver "kqueue": `"io_uring"` and `"epoll"` are"#),
            (
                "ring_entries = 4",
                "there is no option `ring_entries`: `#[trefoil::test]` has `seed`, `seeds`, `real` and `driver`",
            ),
        ] {
            assert_eq!(error(expand_test, options, "async fn f() {}"), told);
        }
        assert_eq!(
            error(expand_main, "seed = 4", "async fn main() {}"),
            "there is no option `seed`: `#[trefoil::main]` has `driver` and `ring_entries`"
        );
    }
}
