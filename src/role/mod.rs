//! Role files: from text to [`Settings`](crate::limits::Settings), with every mistake of the file. Pure: the text, the
//! machine, the environment and whatever a role extends are passed in.
//!
//! [`resolve()`] is the way through: `raw` reads one file as it is written (`grants` and `isolation` the forms of other
//! programs), `inherit` adds what the file extends, `resolve` gives it meaning on one machine, and `lint` compares the
//! values with each other and with the machine. Over all of it is the operator's [`HostPolicy`].
//! [`schema()`] says the same of the keys and values to an editor.
#![deny(clippy::disallowed_methods)]

mod diagnostic;
mod dialect;
mod events;
mod expand;
mod grants;
mod inherit;
mod isolation;
mod lint;
mod name;
mod policy;
mod raw;
mod resolve;
mod schema;
mod suggest;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Related, Severity, Source};
pub use dialect::Dialect;
pub use events::{DriftAction, EVENTS, Events};
pub use inherit::LoadError;
pub use name::{NAME_MAX, check_name};
pub use policy::HostPolicy;
pub use resolve::{Inputs, Override, Overrides, Resolved, Role, resolve};
pub use schema::schema;
pub(crate) use suggest::{distance, knob_help, nearest};
