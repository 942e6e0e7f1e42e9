//! Messages of D-Bus as bytes (D-Bus specification, "Message Protocol"): the frame is written and read here, what is in it
//! by zbus. Pure: it reads no socket.

use serde::{Deserialize, Serialize};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, LE, Signature, to_bytes};
use zbus::{DynamicType, Type, Variant};

/// The longest message that the specification allows.
const LONGEST: usize = 1 << 27;
/// The fixed begin of a message, before its fields.
const BEGIN: usize = 16;

/// The fields of a header (D-Bus specification, "Header Fields").
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
    pub(super) const UNIX_FDS: u8 = 9;
}

/// Which kind a message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// A call as it is sent.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// What the body refers to by number goes along with the first byte.
    pub(super) body: Data<'static, 'static>,
}

/// Writes a call.
///
/// # Errors
///
/// The body cannot be encoded.
pub(super) fn call<B>(serial: u32, method: Method<'_>, body: &B) -> zbus::Result<Encoded>
where
    B: Serialize + DynamicType + ?Sized,
{
    let signature = body.signature();
    let body = to_bytes(Context::new(LE, 0), body)?;
    let mut fields = Fields::default();
    fields.text(field::PATH, b'o', method.path);
    fields.text(field::INTERFACE, b's', method.interface);
    fields.text(field::MEMBER, b's', method.member);
    fields.text(field::DESTINATION, b's', method.destination);
    if signature != Signature::Unit {
        fields.signature(&signature.to_string_no_parens());
    }
    if !body.fds().is_empty() {
        fields.number(field::UNIX_FDS, body.fds().len() as u32);
    }
    let Fields(fields) = fields;
    const CALL: u8 = 1;
    const VERSION: u8 = 1;
    let mut bytes = vec![b'l', CALL, 0, VERSION];
    for number in [body.bytes().len(), serial as usize, fields.len()] {
        bytes.extend((number as u32).to_le_bytes());
    }
    bytes.extend(fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body.bytes());
    Ok(Encoded { bytes, body })
}

/// Header fields, which begin at a multiple of eight.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn begin(&mut self, code: u8, kind: u8) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend([code, 1, kind, 0]);
    }

    fn number(&mut self, code: u8, number: u32) {
        self.begin(code, b'u');
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, code: u8, kind: u8, text: &str) {
        self.begin(code, kind);
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.begin(field::SIGNATURE, b'g');
        // Those that are sent here are short.
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }
}

/// A message as it was received.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The serial of the call that it answers.
    pub(super) answers: Option<u32>,
    pub(super) interface: String,
    pub(super) member: String,
    /// The name of an error.
    pub(super) error: String,
    signature: String,
    body: Vec<u8>,
    is_little: bool,
}

/// The length of the first message in `bytes`; `None` where that is not to be seen yet.
///
/// # Errors
///
/// What is there is no message, or one that is too long.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(begin) = bytes.get(..BEGIN) else {
        return Ok(None);
    };
    let is_little = is_little(begin[0])?;
    let (body, fields) = (number(begin, 4, is_little), number(begin, 12, is_little));
    let length = fields.checked_add(BEGIN + 7).map(|end| end / 8 * 8);
    let length = length.and_then(|begin| begin.checked_add(body));
    match length.filter(|length| *length <= LONGEST) {
        Some(length) => Ok(Some(length)),
        None => Err("a message that is too long".to_owned()),
    }
}

fn is_little(first: u8) -> Result<bool, String> {
    match first {
        b'l' => Ok(true),
        b'B' => Ok(false),
        other => Err(format!("what begins with the byte {other}, and so is no message")),
    }
}

/// The number at `at`, which is within the begin of a message.
fn number(begin: &[u8], at: usize, is_little: bool) -> usize {
    let bytes = [begin[at], begin[at + 1], begin[at + 2], begin[at + 3]];
    match is_little {
        true => u32::from_le_bytes(bytes) as usize,
        false => u32::from_be_bytes(bytes) as usize,
    }
}

impl Message {
    /// Reads one whole message.
    ///
    /// # Errors
    ///
    /// It is none, or a kind that is not known.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        if length(bytes)? != Some(bytes.len()) {
            return Err("a message that is cut off".to_owned());
        }
        let is_little = is_little(bytes[0])?;
        let kind = match bytes[1] {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            other => return Err(format!("a message of the unknown type {other}")),
        };
        let end = bytes.len() - number(bytes, 4, is_little);
        // The array of fields, with its length before it.
        let header = Data::new(&bytes[12..end], Context::new(order(is_little), 12));
        let fields: (Vec<(u8, Variant<'_>)>, usize) =
            header.deserialize().map_err(|error| error.to_string())?;
        let mut message = Self {
            kind,
            answers: None,
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            signature: String::new(),
            body: bytes[end..].to_vec(),
            is_little,
        };
        for (code, value) in fields.0 {
            match (code, value) {
                (field::REPLY_SERIAL, Variant::U32(serial)) => message.answers = Some(serial),
                (field::INTERFACE, Variant::Str(text)) => message.interface = text.to_string(),
                (field::MEMBER, Variant::Str(text)) => message.member = text.to_string(),
                (field::ERROR_NAME, Variant::Str(text)) => message.error = text.to_string(),
                (field::SIGNATURE, Variant::Signature(signature)) => {
                    message.signature = signature.to_string_no_parens();
                }
                _ => {}
            }
        }
        Ok(message)
    }

    /// Gives what is in it to `take`.
    ///
    /// # Errors
    ///
    /// It is of another type.
    pub(super) fn body<T, R>(&self, take: impl FnOnce(T) -> R) -> Result<R, String>
    where
        T: Type + for<'d> Deserialize<'d>,
    {
        let expected = T::SIGNATURE.to_string_no_parens();
        if self.signature != expected {
            return Err(format!("`{}` in place of `{expected}`", self.signature));
        }
        let data = Data::new(&self.body[..], Context::new(order(self.is_little), 0));
        let read: Result<(T, usize), _> = data.deserialize();
        read.map(|(value, _)| take(value))
            .map_err(|error| error.to_string())
    }

    /// The text that an error comes with, where it has one.
    pub(super) fn text(&self) -> Option<String> {
        self.body(|text: String| text).ok()
    }
}

fn order(is_little: bool) -> zbus::wire::Endian {
    match is_little {
        true => LE,
        false => BE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METHOD: Method<'_> = Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "StartUnit",
    };

    /// A reply as systemd sends it on its own socket, where its name on the bus is the sender's.
    fn reply() -> Vec<u8> {
        let mut fields = Fields::default();
        fields.number(field::REPLY_SERIAL, 2);
        fields.signature("s");
        fields.text(7, b's', "org.freedesktop.systemd1");
        let body = [&[5, 0, 0, 0][..], b"hello\0"].concat();
        let mut message = vec![b'l', 2, 1, 1];
        for number in [body.len(), 9, fields.0.len()] {
            message.extend((number as u32).to_le_bytes());
        }
        message.extend(fields.0);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[test]
    fn a_reply_is_read() {
        let bytes = reply();
        for end in 0..bytes.len() {
            assert!(Message::read(&bytes[..end]).is_err(), "{end}");
        }
        let message = Message::read(&bytes).unwrap();
        assert_eq!((message.kind, message.answers), (Kind::Return, Some(2)));
        assert_eq!(message.text().as_deref(), Some("hello"));
        assert!(message.body(|number: u32| number).is_err());
        let two = [&bytes[..], &bytes[..5]].concat();
        assert_eq!(length(&two), Ok(Some(bytes.len())));
        assert!(length(b"HTTP/1.1 400 Bad Request\r\n").is_err());
        assert!(length(&[b'l', 2, 1, 1, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }

    #[test]
    fn a_call_is_read_again_as_it_was_written() {
        let written = call(7, METHOD, &("a.service", "fail", vec![("X", Variant::U64(3))])).unwrap();
        assert_eq!(length(&written.bytes), Ok(Some(written.bytes.len())));
        let read = Message::read(&written.bytes).unwrap();
        assert_eq!((read.kind, read.member.as_str()), (Kind::Call, "StartUnit"));
        type Body = (String, String, Vec<(String, zbus::OwnedVariant)>);
        let (unit, mode, properties): Body = read.body(|body: Body| body).unwrap();
        assert_eq!((unit.as_str(), mode.as_str()), ("a.service", "fail"));
        assert_eq!(*properties[0].1, Variant::U64(3));
        let nothing = call(8, METHOD, &()).unwrap();
        assert!(Message::read(&nothing.bytes).unwrap().body.is_empty());
        assert_eq!(nothing.bytes.len() % 8, 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0usize..120, other: u8) {
            let _ = (length(&bytes), Message::read(&bytes));
            // Nearly a message, too.
            let mut bytes = reply();
            let at = at % bytes.len();
            bytes[at] = other;
            if let Ok(message) = Message::read(&bytes) {
                let _ = message.text();
            }
        }
    }
}
