//! `$VAR` and `${VAR}` in a string value.

use std::borrow::Cow;

/// Why a string could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// The variable of this name is not set.
    Unset(String),
    /// A `$` that begins no variable.
    LoneDollar,
    /// A `${` without its `}`.
    Unclosed,
}

/// Replaces each `$NAME` and `${NAME}` by the variable's value, and `$$` by one `$`. A name is a letter or underscore,
/// then letters, digits and underscores, as in a shell. What was put in is not expanded again.
pub(super) fn expand<'t>(
    text: &'t str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Cow<'t, str>, ExpandError> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or(ExpandError::Unclosed)?,
            None => after.split_at(name_length(after)),
        };
        if name.is_empty() || name_length(name) != name.len() {
            return Err(ExpandError::LoneDollar);
        }
        expanded.push_str(&env(name).ok_or_else(|| ExpandError::Unset(name.into()))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Cow::Owned(expanded))
}

/// How many bytes of `text` are the name of a variable.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "MEM" => Some("16 GiB".into()),
            "N" => Some("3".into()),
            "EMPTY" => Some(String::new()),
            "LOOP" => Some("$LOOP".into()),
            _ => None,
        }
    }

    #[test]
    fn expands() {
        for (text, expected) in [
            ("16 GiB", "16 GiB"),
            ("$MEM", "16 GiB"),
            ("${MEM}", "16 GiB"),
            ("${N}GiB", "3GiB"),
            ("$N GiB", "3 GiB"),
            ("$N$N", "33"),
            ("$EMPTY", ""),
            ("$$N", "$N"),
            ("$LOOP", "$LOOP"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses() {
        for (text, expected) in [
            ("$NOPE", ExpandError::Unset("NOPE".into())),
            ("${NOPE}", ExpandError::Unset("NOPE".into())),
            ("$NGiB", ExpandError::Unset("NGiB".into())),
            ("$", ExpandError::LoneDollar),
            ("$ N", ExpandError::LoneDollar),
            ("$1", ExpandError::LoneDollar),
            ("${}", ExpandError::LoneDollar),
            ("${N:-3}", ExpandError::LoneDollar),
            ("$ä", ExpandError::LoneDollar),
            ("${N", ExpandError::Unclosed),
        ] {
            assert_eq!(expand(text, &env), Err(expected), "{text}");
        }
    }
}
