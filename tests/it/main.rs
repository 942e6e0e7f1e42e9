//! Black-box tests that need no special machine.

mod dialects;
mod import;
mod layers;
mod properties;
mod readme;
mod roles;
mod schema;
mod translate;
mod workspace;
