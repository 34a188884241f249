//! For one measurement: what the task tree, the reports and the instruments cost a program that looks at none of them.

/// Built with `--cfg trefoil_blind`, the library keeps no account of itself for who looks on, and the compiler takes out what is behind this; `trefoil-io` asks for the flag itself. Such
/// a build is to be counted, and not to be used: what looks finds nothing, or what is wrong. See "What looking costs" in `benches/README.md`.
pub(crate) const BLIND: bool = cfg!(trefoil_blind);
