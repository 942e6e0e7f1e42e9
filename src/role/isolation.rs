//! multicode's `[isolation]`: a soft and a hard memory limit, CPU time as a percentage, open files. Everything else in
//! that table is about what a sandbox can see.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::dialect::{Dialect, ISOLATION};
use super::raw::{Entry, RawRole, Reader, shown, type_of};
use crate::limits::{Declared, KnobId, Scalar, Size};

impl Reader<'_> {
    /// `[isolation]`. Without a limit in it, the file declares none in this form.
    pub(super) fn isolation(&mut self, table: &DeTable<'_>, role: &mut RawRole) {
        let mut seen: Vec<(KnobId, Range<usize>)> = Vec::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let Some((_, id, path)) = ISOLATION.iter().find(|(limit, ..)| *limit == name) else {
                self.foreign_limit(Dialect::Multicode, "isolation", name, key.span());
                continue;
            };
            if seen.is_empty() {
                self.declares(Dialect::Multicode, "[isolation]", key.span(), role);
            }
            if let Some((_, first)) = seen.iter().find(|(known, _)| known == id) {
                let message =
                    format!("{path}: the same limit is written twice, with a hyphen and with an underscore");
                let first = self.place(first.clone());
                self.error_beside(key.span(), message, "keep one of them", &first, "and here");
            }
            seen.push((*id, key.span()));
            role.entries.extend(self.isolation_limit(*id, path, value));
        }
    }

    fn isolation_limit(
        &mut self,
        id: KnobId,
        path: &'static str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Entry> {
        let mut written = self.written(value);
        let text = match value.get_ref() {
            DeValue::String(raw) => {
                let text = self.expanded(path, raw, value)?;
                if text != *raw {
                    written = format!("{written} (which is {})", shown(&format!("{text:?}")));
                }
                // Blank is how multicode writes no limit.
                if text.trim().is_empty() {
                    return None;
                }
                text
            }
            DeValue::Integer(number) if id == KnobId::Nofile => {
                let number = i128::from_str_radix(number.as_str(), number.radix());
                number.unwrap_or(i128::MAX).to_string()
            }
            _ => {
                let message = format!("{path} = {written}: expected text, found {}", type_of(value));
                self.error(
                    value.span(),
                    message,
                    "put it in quotes, e.g. \"12 GiB\" or \"300%\"",
                );
                return None;
            }
        };
        let declared = match id {
            KnobId::MemoryHigh | KnobId::MemoryMax => {
                Size::parse_isolation(&text).map(|size| size.map(Declared::Size))
            }
            _ => id.knob().declare(Scalar::Text(&text)).map(Some),
        };
        match declared {
            Ok(declared) => Some(Entry {
                id,
                declared: declared?,
                place: self.place(value.span()),
                written,
                path,
                called: path,
                note: None,
            }),
            Err(error) => {
                self.error(value.span(), format!("{path} = {written}: {error}"), error.help());
                None
            }
        }
    }
}
