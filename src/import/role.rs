//! Files that are roles already: jackin's and multicode's, in cgmgr's own form.

use super::Refused;
use super::draft::Draft;
use crate::limits::Origin;
use crate::role::{Diagnostic, Inputs, Source, resolve};

/// Reads one with whatever it extends; the result is one file. Percentages become what they are on this machine.
pub(super) fn read(
    source: Source,
    inputs: &Inputs<'_>,
    draft: &mut Draft,
) -> Result<Vec<Diagnostic>, Refused> {
    let (role, warnings) = resolve(source, inputs).map_err(Refused::Mistakes)?;
    draft.name(&role.name);
    for setting in role.settings.iter() {
        if let (Some(value), Origin::Role { .. } | Origin::Inherited { .. }) =
            (&setting.value, &setting.origin)
        {
            let from = match (role.dialect_of(&setting.origin), setting.origin.source()) {
                (Some(dialect), Some(source)) => {
                    let path = dialect.path_of(setting.knob.id).unwrap_or(setting.knob.path);
                    format!("{path} of {source}")
                }
                _ => setting.origin.to_string(),
            };
            draft.set_value(setting.knob.id, value, &from);
        }
    }
    Ok(warnings)
}
