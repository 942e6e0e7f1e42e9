//! `cgmgr schema`: the JSON Schema of role files.

use super::context::{Outcome, print_json};

/// `cgmgr schema`.
pub fn schema() -> Outcome {
    print_json(&crate::role::schema())?;
    Ok(0)
}
