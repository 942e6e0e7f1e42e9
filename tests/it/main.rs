//! Black-box tests that need no special machine.

mod dialects;
mod layers;
mod properties;
mod readme;
mod roles;
mod schema;
mod workspace;
