//! Black-box tests that need no special machine.

mod layers;
mod readme;
mod roles;
