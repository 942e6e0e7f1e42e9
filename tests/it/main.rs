//! Black-box tests that need no special machine.

mod readme;
mod roles;
