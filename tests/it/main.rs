//! Black-box tests that need no special machine.

mod layers;
mod properties;
mod readme;
mod roles;
