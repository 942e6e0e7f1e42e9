//! Compared with a whole parser of YAML.

use super::*;
use proptest::prelude::*;
use saphyr_parser::{Event, Parser, ScalarStyle};

/// What a whole parser of YAML reads. Text over several lines is nothing here.
fn whole_parser(text: &str) -> Option<Node> {
    enum Open {
        List(Vec<Node>),
        Table(Vec<(String, Node)>, Option<String>),
    }
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut anchors: Vec<(usize, Node)> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (node, anchor) = match event.ok()?.0 {
            Event::Scalar(value, style, anchor, _) => {
                let nothing = match style {
                    ScalarStyle::Plain => matches!(&*value, "" | "~" | "null" | "Null" | "NULL"),
                    ScalarStyle::Literal | ScalarStyle::Folded => true,
                    _ => false,
                };
                (Node::Scalar((!nothing).then(|| value.into_owned())), anchor)
            }
            Event::Alias(anchor) => (anchors.iter().find(|(id, _)| *id == anchor)?.1.clone(), 0),
            Event::SequenceStart(anchor, _) => {
                open.push((Open::List(Vec::new()), anchor));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push((Open::Table(Vec::new(), None), anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop()? {
                (Open::List(items), anchor) => (Node::List(items), anchor),
                (Open::Table(entries, _), anchor) => {
                    let (merged, mut own): (Vec<_>, Vec<_>) =
                        entries.into_iter().partition(|(key, _)| key == "<<");
                    merge(&mut own, merged.into_iter().map(|(_, value)| value).collect());
                    (Node::Table(own), anchor)
                }
            },
            Event::DocumentEnd => break,
            _ => continue,
        };
        if anchor != 0 {
            anchors.push((anchor, node.clone()));
        }
        match open.last_mut() {
            None => return Some(node),
            Some((Open::List(items), _)) => items.push(node),
            Some((Open::Table(entries, key), _)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(node.text().unwrap_or_default().to_owned()),
            },
        }
    }
    Some(Node::Scalar(None))
}

#[test]
fn what_compose_files_are_written_in_is_read_as_a_whole_parser_reads_it() {
    for text in [
        "",
        "# nothing\n",
        "---\na: 1\n---\nb: 2\n",
        "%YAML 1.2\n---\na: 1\n...\n",
        "a:\n  b: c\n  d:\n    - e\n    - f: g\n      h: i\n    -\n      j: k\n    - - l\n      - m\n    -\nn: o\n",
        "a:\n- b\n- c: d\n  e:\n  - f\ng:\n",
        "a: \"b: # c\" # d\nb: 'it''s' # e\nc: d#e # f\nd: # g\n  e\n'f g': h\n\"i\": j\nk : l\n",
        "a: [b, \"c, d\", [e, 'f ] g'], {h: i, j: [k]}, ] # l\nm: {n, o: , \"p\": q, r: s:t, u: 'v'}\nw: []\nx: {}\n",
        "a: [b,\n  c, # d ]\n  e\n]\nf: {\n  g: h\n  }\n",
        "a: |\n  b: c\n\n   # d\n  e\nf: >-\n  g\nh: i\n",
        "a: b\n  c\n  d # e\nf: \"g\n  h\"\ni: j\n\n\n  k\nl: 'm\n  # n\n\n  o'\n",
        "x: &a\n  b: 1\n  c: &d [2]\ny:\n  <<: *a\n  b: 3\nz: {<<: *a, c: 4}\nv:\n  <<: [*a, {e: 5}]\nw: *d\nu: &s text\nt: *s\n",
        "a: ~\nb: null\nc: 'null'\nd: \"\"\ne: -1\n",
        "ports:\n  - \"80:80\"\n  - 443:443\n  - http://a.b/c:d\ncommand: [\"sh\", \"-c\", \"a: b\"]\nenv:\n  - A=b # c\n  - D=\"e f\"\n",
        "a:    b\n\n\n#c\n   # d\ne:\n      f: g\n      h: i\n",
        "a: \"\\\"b\\\\ \\n\\t\\/\"\nb: ${C:-d}\nc: 1.5g\nd: @\n"
            .replace("d: @\n", "")
            .as_str(),
        "- a\n- b:\n    c\n-   d: e\n    f: g\n",
        "plain\n",
        "\"quoted\"\n",
        "[1, 2]\n",
    ] {
        let ours = parse(text).unwrap_or_else(|why| panic!("{text}\n{why}"));
        assert_eq!(Some(ours), whole_parser(text), "{text}");
    }
}

#[test]
fn what_is_beyond_it_is_refused_with_its_line() {
    for (text, why) in [
        ("a: b\nc: !tag d\n", "line 2: a tag"),
        ("a:\n  ? b\n  : c\n", "line 2: a key that is no text"),
        ("a: *b\n", "line 1: an alias of nothing"),
        ("a: [b\nc: d\n", "line 1: a bracket"),
        ("a: 'b\n", "line 1: a quote"),
        ("a: 'b' c\n", "line 1: something behind"),
        (
            "a: b\n  c: d\n",
            "line 2: a key, or an anchor, where text goes on",
        ),
        ("a: b\nc\n", "line 2: no key with a colon"),
        ("  a: b\nc: d\n", "line 2: it is less indented"),
        ("a: b\na: c\n", "line 2: the key is there twice"),
        ("a: \"\\x41\"\n", "line 1: an escape"),
        ("a:\n\tb: c\n", "line 2: a tab"),
        ("a:\n  \tb: c\n", "line 2: a tab"),
        ("*a : b\n", "line 1: a key that is no plain text"),
        ("a: [b: c]\n", "line 1: a key in a list"),
        ("a: [b c, , d]\n", "line 1: a value is missing"),
    ] {
        let said = parse(text).expect_err(text);
        assert!(said.starts_with(why), "{text}: {said}");
    }
}

#[test]
fn a_small_file_is_neither_much_memory_nor_much_time() {
    let long = "x".repeat(500_000);
    let aliases = format!("a: &a {long}\nb:\n{}", "- *a\n".repeat(90_000));
    let lines = format!("a: [\n{}]\n", " x,\n".repeat(250_000));
    let quoted = format!("a: \"\n{}\"\n", " x\n".repeat(300_000));
    for (text, why) in [
        (aliases, "line 15: too much for one file: aliases of aliases?"),
        (lines, "line 1: a value over too many lines"),
        (quoted, "line 1: a value over too many lines"),
    ] {
        assert!(text.len() < 1 << 20);
        assert_eq!(parse(&text).as_ref().map_err(String::as_str), Err(why));
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-c #:,'\"\\[\\]{}&*!|>%@`?~-]{0,6}"
}

fn node() -> impl Strategy<Value = Node> {
    let leaf =
        prop_oneof![1 => Just(Node::Scalar(None)), 4 => text().prop_map(|text| Node::Scalar(Some(text)))];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Node::List),
            proptest::collection::btree_map("[a-z]{1,3}", inner, 1..4)
                .prop_map(|entries| Node::Table(entries.into_iter().collect())),
        ]
    })
}

fn flow(node: &Node) -> String {
    match node {
        Node::Scalar(None) => "null".into(),
        Node::Scalar(Some(text)) if text.len() % 2 == 0 => format!("'{}'", text.replace('\'', "''")),
        Node::Scalar(Some(text)) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        Node::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Node::Table(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key}: {}", flow(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn block(node: &Node, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match node {
        Node::List(items) => items.iter().for_each(|item| {
            out.push_str(&format!("{pad}-"));
            below(item, indent + 2, out);
        }),
        Node::Table(entries) => entries.iter().for_each(|(key, value)| {
            out.push_str(&format!("{pad}{key}:"));
            below(value, indent + 3, out);
        }),
        scalar => out.push_str(&format!("{pad}{}\n", flow(scalar))),
    }
}

fn below(node: &Node, indent: usize, out: &mut String) {
    match node {
        Node::Scalar(_) => out.push_str(&format!(" {} # c\n", flow(node))),
        Node::Table(entries) if entries.len() == 3 => out.push_str(&format!(" {}\n", flow(node))),
        _ => {
            out.push('\n');
            block(node, indent, out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_by_both(node in node()) {
        let mut text = String::new();
        block(&node, 0, &mut text);
        prop_assert_eq!(whole_parser(&text), Some(node.clone()), "{}", text);
        prop_assert_eq!(parse(&text), Ok(node), "{}", text);
    }

    /// Whatever is understood is understood rightly. Plain text is where guesses would be made.
    #[test]
    fn plain_text_is_read_as_a_whole_parser_reads_it_or_refused(
        lines in proptest::collection::vec(("[ ]{0,2}", "[a-b]{1,2}:( [a-c#:,' \"-]{0,6})?|- [a-c#:, -]{0,5}|[a-c #:-]{0,4}"), 1..5)
    ) {
        let text: String = lines.iter().map(|(indent, line)| format!("{indent}{line}\n")).collect();
        if let (Ok(ours), Some(theirs)) = (parse(&text), whole_parser(&text)) {
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }

    #[test]
    fn nothing_makes_it_panic(text in "[a-c\\n #:,'\"\\[\\]{}&*!|>ä\\\\\t-]{0,60}") {
        let _ = parse(&text);
    }
}
