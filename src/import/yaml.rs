//! As much of YAML as Compose files are written in, as a tree of scalars, lists and tables: blocks, flow lists and tables,
//! quotes, comments, anchors, aliases and merge keys. What is beyond that (tags, keys that are no text) is refused with its
//! line, and never guessed: `docker compose config` writes the same file plainly.
//!
//! A whole parser is 75 KiB of a program of three megabytes. One is what this is compared with, in the tests.

/// A file may have so many nodes, each alias counted as what it stands for: a few aliases of aliases make millions.
const MOST_NODES: usize = 100_000;

/// So much of a text counts as one more: an alias of a long one is all of it again.
const NODE_OF_TEXT: usize = 64;

/// A value may go on over so many lines: each is searched for its end again.
const MOST_LINES: usize = 1000;

/// And be nested so deep.
const DEEPEST: usize = 100;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Text, a number, a switch: as it is written. None: nothing, `null` without quotes, or text over several lines.
    Scalar(Option<String>),
    /// `- a`.
    List(Vec<Node>),
    /// `a: b`, in the order of the file.
    Table(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let mut entries = self.entries().iter();
        entries.find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// All keys and values; none where it is no table.
    pub(super) fn entries(&self) -> &[(String, Node)] {
        match self {
            Node::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The text, where it is a scalar with one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Node::Scalar(text) => text.as_deref(),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Node::Scalar(text) => 1 + text.as_ref().map_or(0, |text| text.len() / NODE_OF_TEXT),
            Node::List(items) => items.iter().map(Node::size).sum::<usize>() + 1,
            Node::Table(entries) => {
                let size = |(key, value): &(String, Node)| value.size() + 1 + key.len() / NODE_OF_TEXT;
                entries.iter().map(size).sum::<usize>() + 1
            }
        }
    }
}

/// Reads the first document of a text. The error says what is wrong and in which line.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    let mut lines = Vec::new();
    for (number, whole) in text.lines().enumerate() {
        let whole = whole.trim_end();
        if matches!(whole, "..." | "---") || whole.starts_with("--- ") {
            if lines.iter().any(|line: &Line<'_>| !line.is_blank()) {
                break;
            }
            continue;
        }
        // A directive, before any document.
        if whole.starts_with('%') && lines.is_empty() {
            continue;
        }
        let text = whole.trim_start_matches(' ');
        if text.starts_with('\t') && !text.trim_start().is_empty() {
            return Err(wrong(number + 1, "a tab in the indentation"));
        }
        lines.push(Line {
            number: number + 1,
            indent: whole.len() - text.len(),
            text,
        });
    }
    let mut reader = Reader {
        lines,
        at: 0,
        nodes: 0,
        anchors: Vec::new(),
    };
    let node = reader.block(0, 0)?;
    match reader.next() {
        Some(line) => Err(wrong(
            line.number,
            "it is less indented than what it belongs to, or does not belong there",
        )),
        None => Ok(node),
    }
}

/// A line, or what is left of it.
#[derive(Clone, Copy)]
struct Line<'t> {
    number: usize,
    indent: usize,
    text: &'t str,
}

impl Line<'_> {
    fn is_blank(&self) -> bool {
        self.text.is_empty() || self.text.starts_with('#')
    }
}

fn wrong(line: usize, what: &str) -> String {
    format!("line {line}: {what}")
}

/// `- a` or `-` alone.
fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Without the comment behind it, which begins with a space.
fn without_comment(text: &str) -> &str {
    let end = text
        .match_indices('#')
        .find(|(at, _)| *at == 0 || text[..*at].ends_with([' ', '\t']));
    text[..end.map_or(text.len(), |(at, _)| at)].trim_end()
}

/// The same of text with quotes in it, in which there are no comments.
fn without_comment_in_flow(text: &str) -> &str {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let begins = at == 0 || text[..at].ends_with([' ', '\t', ',', '[', '{']);
        match c {
            '#' if at == 0 || text[..at].ends_with([' ', '\t']) => return text[..at].trim_end(),
            '"' | '\'' if begins => match closing(&text[at..], c) {
                Some(end) => at += end,
                None => return text,
            },
            _ => at += c.len_utf8(),
        }
    }
    text
}

/// A key in quotes or without, and what is behind its colon. None: it is no key.
fn split_key(text: &str) -> Option<(&str, &str)> {
    if let Some(quote @ ('"' | '\'')) = text.chars().next() {
        let end = closing(text, quote)?;
        let rest = text[end..].trim_start().strip_prefix(':')?;
        return Some((&text[..end], rest));
    }
    if text.starts_with(['[', '{', '#', '|', '>', '@', '`', '%']) {
        return None;
    }
    let said = without_comment(text);
    let mut colons = said.match_indices(':').map(|(at, _)| at);
    let at = colons.find(|at| said.len() == at + 1 || said[at + 1..].starts_with([' ', '\t']))?;
    Some((said[..at].trim_end(), &text[at + 1..]))
}

/// The place behind the closing quote.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut rest = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        if c == '\\' && quote == '"' {
            rest.next();
        } else if c == quote {
            if quote == '\'' && rest.next_if(|(_, c)| *c == quote).is_some() {
                continue;
            }
            return Some(at + 1);
        }
    }
    None
}

struct Reader<'t> {
    lines: Vec<Line<'t>>,
    at: usize,
    nodes: usize,
    anchors: Vec<(String, Node)>,
}

impl<'t> Reader<'t> {
    /// The next line that says something.
    fn next(&mut self) -> Option<Line<'t>> {
        while self.lines.get(self.at)?.is_blank() {
            self.at += 1;
        }
        Some(self.lines[self.at])
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), String> {
        self.nodes += more;
        if self.nodes > MOST_NODES {
            return Err(wrong(line, "too much for one file: aliases of aliases?"));
        }
        Ok(())
    }

    /// What is indented by at least so much; nothing where nothing is.
    fn block(&mut self, least: usize, depth: usize) -> Result<Node, String> {
        let Some(first) = self.next().filter(|line| line.indent >= least) else {
            return Ok(Node::Scalar(None));
        };
        if depth > DEEPEST {
            return Err(wrong(first.number, "nested too deep"));
        }
        if first.text.starts_with("? ") {
            return Err(wrong(first.number, "a key that is no text"));
        }
        if is_item(first.text) {
            return self.list(first.indent, depth);
        }
        if split_key(first.text).is_some() {
            return self.table(first.indent, depth);
        }
        self.at += 1;
        // What is not indented more than the parent ends it.
        self.value(
            first.text,
            first.number,
            least.saturating_sub(1),
            least == 0,
            depth,
        )
    }

    fn list(&mut self, indent: usize, depth: usize) -> Result<Node, String> {
        let mut items = Vec::new();
        while let Some(line) = self
            .next()
            .filter(|line| line.indent == indent && is_item(line.text))
        {
            self.count(1, line.number)?;
            let rest = line.text[1..].trim_start_matches(' ');
            // The item is a block of its own that begins behind the hyphen.
            if split_key(rest).is_some() || is_item(rest) {
                self.lines[self.at] = Line {
                    indent: indent + line.text.len() - rest.len(),
                    text: rest,
                    ..line
                };
                items.push(self.block(indent + 1, depth + 1)?);
            } else {
                self.at += 1;
                items.push(self.value(rest, line.number, indent, false, depth + 1)?);
            }
        }
        Ok(Node::List(items))
    }

    fn table(&mut self, indent: usize, depth: usize) -> Result<Node, String> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        while let Some(line) = self
            .next()
            .filter(|line| line.indent == indent && !is_item(line.text))
        {
            let Some((key, rest)) = split_key(line.text) else {
                return Err(wrong(line.number, "no key with a colon"));
            };
            let begins_oddly = key.starts_with(['&', '*', '!', '?', '\t', ',', ']', '}', '-', ':']);
            if key.is_empty() || begins_oddly {
                return Err(wrong(line.number, "a key that is no plain text"));
            }
            self.count(1, line.number)?;
            self.at += 1;
            let key = scalar(key, line.number)?;
            let value = self.value(rest, line.number, indent, true, depth + 1)?;
            match key {
                key if key == "<<" => merged.push(value),
                key if entries.iter().any(|(known, _)| *known == key) => {
                    return Err(wrong(line.number, "the key is there twice"));
                }
                key => entries.push((key, value)),
            }
        }
        merge(&mut entries, merged);
        Ok(Node::Table(entries))
    }

    /// What is behind a colon or a hyphen, on this line or indented below it. `in_table`: a list may be as little indented as
    /// its key.
    fn value(
        &mut self,
        text: &str,
        number: usize,
        indent: usize,
        in_table: bool,
        depth: usize,
    ) -> Result<Node, String> {
        self.count(1, number)?;
        let mut text = text.trim_start();
        // A hyphen or a colon that begins text has to be followed by more of it.
        if matches!(
            text.as_bytes(),
            [b'-' | b':' | b'?'] | [b'-' | b':' | b'?', b' ' | b'\t', ..]
        ) {
            return Err(wrong(
                number,
                "text that begins like something else: put it in quotes",
            ));
        }
        let mut anchor = None;
        let mut commented = false;
        if let Some(rest) = text.strip_prefix('&') {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            anchor = Some(name.to_owned());
            text = rest.trim_start();
        }
        if !text.starts_with(['[', '{', '"', '\'']) {
            let said = without_comment(text);
            commented = said.len() < text.len();
            text = said;
        }
        let node = match text.chars().next() {
            None => {
                let list = self
                    .next()
                    .is_some_and(|line| in_table && line.indent == indent && is_item(line.text));
                self.block(if list { indent } else { indent + 1 }, depth)?
            }
            Some('*') => self.alias(&text[1..], number)?,
            Some('!' | '@' | '`' | '%') => {
                return Err(wrong(number, "a tag, or something else that is not read here"));
            }
            Some('|' | '>') => {
                while self
                    .lines
                    .get(self.at)
                    .is_some_and(|line| line.text.is_empty() || line.indent > indent)
                {
                    self.at += 1;
                }
                Node::Scalar(None)
            }
            Some(first @ ('[' | '{' | '"' | '\'')) => {
                let whole = self.whole(text, first, number, indent)?;
                let mut flow = Flow { text: &whole, number };
                let node = flow.node(self, depth)?;
                if !without_comment(flow.text.trim_start()).is_empty() {
                    return Err(wrong(number, "something behind the end of the value"));
                }
                node
            }
            Some(_) => {
                let mut whole = text.to_owned();
                // Text goes on in lines that are indented more, unless a comment ends it.
                while !commented && let Some(line) = self.more(indent, &mut whole, false) {
                    if split_key(line.text).is_some() || anchor.is_some() {
                        return Err(wrong(line.number, "a key, or an anchor, where text goes on"));
                    }
                    let said = without_comment(line.text);
                    commented = said.len() < line.text.len();
                    whole.push_str(said);
                }
                plain(&whole, number)?
            }
        };
        if let Some(name) = anchor {
            self.anchors.push((name, node.clone()));
        }
        Ok(node)
    }

    fn alias(&mut self, name: &str, number: usize) -> Result<Node, String> {
        let found = self.anchors.iter().rev().find(|(known, _)| known == name);
        let Some(size) = found.map(|(_, node)| node.size()) else {
            return Err(wrong(number, "an alias of nothing"));
        };
        self.count(size, number)?;
        let found = self.anchors.iter().rev().find(|(known, _)| known == name);
        Ok(found.map_or(Node::Scalar(None), |(_, node)| node.clone()))
    }

    /// A value in brackets or quotes with all the lines that it goes on in, without comments.
    fn whole(&mut self, text: &str, first: char, number: usize, indent: usize) -> Result<String, String> {
        let mut whole = text.to_owned();
        let last = number + MOST_LINES;
        let goes_on = |line: &Line<'_>| match line.number < last {
            true => Ok(()),
            false => Err(wrong(number, "a value over too many lines")),
        };
        if matches!(first, '"' | '\'') {
            while closing(&whole, first).is_none() {
                let Some(line) = self.more(indent, &mut whole, true) else {
                    return Err(wrong(number, "a quote that is not closed"));
                };
                goes_on(&line)?;
                whole.push_str(line.text);
            }
            return Ok(whole);
        }
        whole.truncate(without_comment_in_flow(text).len());
        while !is_balanced(&whole) {
            let inside = |line: &Line<'_>| line.indent > indent || line.text.starts_with([']', '}']);
            let Some(line) = self.next().filter(inside) else {
                return Err(wrong(number, "a bracket that is not closed"));
            };
            goes_on(&line)?;
            self.at += 1;
            whole.push(' ');
            whole.push_str(without_comment_in_flow(line.text));
        }
        Ok(whole)
    }

    /// The next line of a text that goes on, with what is between it and the one before put to `text`: a space, or a newline
    /// for each empty line. `quoted`: what begins like a comment is text too.
    fn more(&mut self, indent: usize, text: &mut String, quoted: bool) -> Option<Line<'t>> {
        let empty = self.lines[self.at..]
            .iter()
            .take_while(|line| line.text.is_empty())
            .count();
        let line = *self.lines.get(self.at + empty)?;
        if line.indent <= indent || !quoted && line.is_blank() {
            return None;
        }
        self.at += empty + 1;
        match empty {
            0 => text.push(' '),
            _ => text.extend(std::iter::repeat_n('\n', empty)),
        }
        Some(line)
    }
}

/// Whether each bracket outside of quotes is closed.
fn is_balanced(text: &str) -> bool {
    let mut open = 0usize;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            '"' | '\'' if text[..at].ends_with([' ', ',', '[', '{', ':']) => match closing(&text[at..], c) {
                Some(end) => {
                    at += end;
                    continue;
                }
                None => return false,
            },
            _ => {}
        }
        at += c.len_utf8();
    }
    open == 0
}

/// The entries that merge keys bring, behind a table's own.
fn merge(entries: &mut Vec<(String, Node)>, merged: Vec<Node>) {
    for value in merged {
        let sources = match value {
            Node::List(items) => items,
            other => vec![other],
        };
        for (key, value) in sources.iter().flat_map(Node::entries) {
            if !entries.iter().any(|(known, _)| known == key) {
                entries.push((key.clone(), value.clone()));
            }
        }
    }
}

/// A value in brackets or quotes, on one line.
struct Flow<'w> {
    text: &'w str,
    number: usize,
}

impl<'w> Flow<'w> {
    fn skip(&mut self) {
        self.text = self.text.trim_start();
    }

    /// Takes a character away, where it is the next.
    fn takes(&mut self, c: char) -> bool {
        self.skip();
        match self.text.strip_prefix(c) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn node(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<Node, String> {
        reader.count(1, self.number)?;
        if depth > DEEPEST {
            return Err(wrong(self.number, "nested too deep"));
        }
        if self.takes('[') {
            let mut items = Vec::new();
            while !self.takes(']') {
                items.push(self.node(reader, depth + 1)?);
                if self.text.trim_start().starts_with(':') {
                    return Err(wrong(self.number, "a key in a list"));
                }
                self.separates(']')?;
            }
            return Ok(Node::List(items));
        }
        if self.takes('{') {
            let mut entries: Vec<(String, Node)> = Vec::new();
            let mut merged = Vec::new();
            while !self.takes('}') {
                let key = scalar(self.word()?, self.number)?;
                let value = match self.takes(':') {
                    true if !self.text.trim_start().starts_with([',', '}']) => {
                        self.node(reader, depth + 1)?
                    }
                    _ => Node::Scalar(None),
                };
                match key {
                    key if key == "<<" => merged.push(value),
                    key => entries.push((key, value)),
                }
                self.separates('}')?;
            }
            merge(&mut entries, merged);
            return Ok(Node::Table(entries));
        }
        if self.takes('*') {
            return reader.alias(self.word()?, self.number);
        }
        if self.text.starts_with(['&', '!']) {
            return Err(wrong(self.number, "an anchor or a tag in brackets"));
        }
        let word = self.word()?;
        plain(word, self.number)
    }

    /// A comma, or the end that comes next.
    fn separates(&mut self, end: char) -> Result<(), String> {
        self.skip();
        if self.takes(',') || self.text.starts_with(end) {
            return Ok(());
        }
        Err(wrong(self.number, "no comma between two values"))
    }

    /// A scalar, in quotes or up to what ends it.
    fn word(&mut self) -> Result<&'w str, String> {
        self.skip();
        let text = self.text;
        let end = match text.chars().next() {
            Some(quote @ ('"' | '\'')) => closing(text, quote),
            _ => Some(
                text.char_indices()
                    .find(|(at, c)| match c {
                        ',' | ']' | '}' | '[' | '{' => true,
                        ':' => text[at + 1..].is_empty() || text[at + 1..].starts_with([' ', ',', ']', '}']),
                        _ => false,
                    })
                    .map_or(text.len(), |(at, _)| at),
            ),
        };
        match end {
            Some(end) if end > 0 => {
                self.text = &text[end..];
                Ok(text[..end].trim_end())
            }
            _ => Err(wrong(self.number, "a value is missing")),
        }
    }
}

/// A scalar as a node: without quotes some words are nothing.
fn plain(text: &str, number: usize) -> Result<Node, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Node::Scalar(None),
        _ => Node::Scalar(Some(scalar(text, number)?)),
    })
}

/// The text of a scalar, in quotes or not.
fn scalar(text: &str, number: usize) -> Result<String, String> {
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        return Ok(text.to_owned());
    };
    let inner = match closing(text, quote) {
        Some(end) if end == text.len() => &text[1..end - 1],
        _ => return Err(wrong(number, "something behind a closing quote")),
    };
    if quote == '\'' {
        return Ok(inner.replace("''", "'"));
    }
    let mut out = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.push(match rest.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\' | '/' | ' ')) => c,
                _ => return Err(wrong(number, "an escape that is not read here")),
            }),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
