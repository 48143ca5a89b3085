//! Durations, sizes, addresses and modes as people write them.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A text that is not a quantity of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not {what}")]
pub struct UnitError {
    what: &'static str,
    got: String,
}

impl UnitError {
    fn new(what: &'static str, got: &str) -> Self {
        Self { what, got: got.chars().take(80).collect() }
    }
}

/// A number of bytes, written `512B`, `64KiB`, `64MiB` or `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

/// Units from the largest, so that a size is shown in the largest that divides it.
const BYTE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// A size in bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size in MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || UnitError::new("a size such as \"64MiB\"; units are B, KiB, MiB, GiB and TiB", text);
        let (unit, factor) = BYTE_UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(refuse)?;
        let number = text[..text.len() - unit.len()].trim_end();
        if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(refuse());
        }
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, factor): &&(&str, u64)| self.0 >= factor && self.0.is_multiple_of(factor);
        let (unit, factor) = BYTE_UNITS.iter().find(fits).copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A host and a port, written `HOST:PORT`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The host: a DNS name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl From<std::net::SocketAddr> for HostPort {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for HostPort {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || UnitError::new("an address of the form HOST:PORT, such as \"control-1.example:7400\" or \"[::1]:7400\"", text);
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refuse)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inside) => inside.filter(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok()).ok_or_else(refuse)?,
            None if host.contains(':') => return Err(refuse()),
            None => host,
        };
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
        if host.is_empty() || host.len() > 253 || host.parse::<IpAddr>().is_err() && !host.chars().all(named) {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// The mode of a file, written in octal: `0660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// A mode; only the nine permission bits count.
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o777)
    }

    /// The nine permission bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let octal = text.len() <= 4 && text.bytes().all(|digit| digit.is_ascii_digit());
        let bits = if octal { u32::from_str_radix(text, 8).ok() } else { None };
        bits.filter(|bits| *bits <= 0o777).map(Self).ok_or_else(|| UnitError::new("a file mode in octal such as \"0660\"", text))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

macro_rules! through_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = UnitError;
            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

through_text!(ByteSize);
through_text!(HostPort);
through_text!(FileMode);
through_text!(Never);

/// A duration that may be unlimited, written `7d` or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Never(Option<Duration>);

impl Never {
    /// Without limit.
    pub const NEVER: Self = Self(None);

    /// After a time.
    pub const fn after(duration: Duration) -> Self {
        Self(Some(duration))
    }

    /// The time, or none for `never`.
    pub const fn duration(self) -> Option<Duration> {
        self.0
    }
}

impl FromStr for Never {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "never" { Ok(Self(None)) } else { duration::parse(text).map(|duration| Self(Some(duration))) }
    }
}

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => f.write_str(&duration::show(duration)),
            None => f.write_str("never"),
        }
    }
}

/// For `#[serde(with = ...)]` on a [`Duration`], written `500ms`, `30s`, `5m`, `2h` or `7d`, or a sum such as `1h 30m`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::UnitError;

    /// Units in milliseconds from the largest, so that a duration is shown in the largest that divides it.
    const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    pub(crate) fn parse(text: &str) -> Result<Duration, UnitError> {
        let parsed = humantime::parse_duration(text)
            .map_err(|_| UnitError::new("a duration such as \"500ms\", \"30s\", \"5m\", \"2h\" or \"7d\"", text))?;
        // Milliseconds are what is stored and sent; a finer configuration would silently be another one.
        if parsed.subsec_nanos() % 1_000_000 != 0 {
            return Err(UnitError::new("a whole number of milliseconds", text));
        }
        Ok(parsed)
    }

    pub(crate) fn show(duration: Duration) -> String {
        let ms = duration.as_millis();
        let (unit, factor) = UNITS.iter().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor)).copied().unwrap_or(("ms", 1));
        format!("{}{unit}", ms / factor)
    }

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&show(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_size_round_trips_and_refuses_what_is_ambiguous() {
        for (text, bytes) in
            [("0B", 0), ("1B", 1), ("1023B", 1023), ("64KiB", 65_536), ("64MiB", 64 << 20), ("3GiB", 3 << 30), ("1TiB", 1 << 40)]
        {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes);
            assert_eq!(ByteSize::from_bytes(bytes).to_string(), text);
        }
        assert_eq!("2 MiB".parse(), Ok(ByteSize::from_mib(2)));
        for bad in ["", "B", "64", "64MB", "64M", "-1B", "+1B", "1.5GiB", "99999999TiB", "64mib"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn duration_round_trips_in_the_largest_unit() {
        for (text, ms) in
            [("0ms", 0), ("500ms", 500), ("30s", 30_000), ("90s", 90_000), ("5m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000)]
        {
            assert_eq!(duration::parse(text).unwrap().as_millis(), ms, "{text}");
            assert_eq!(duration::show(Duration::from_millis(ms as u64)), text);
        }
        assert_eq!(duration::parse("1h 30m").unwrap(), Duration::from_secs(5400));
        for bad in ["", "7", "7 parsecs", "-1s", "1us"] {
            assert!(duration::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn never_is_a_word_and_not_a_number() {
        assert_eq!("never".parse::<Never>().unwrap().duration(), None);
        assert_eq!("7d".parse::<Never>().unwrap(), Never::after(Duration::from_secs(604_800)));
        assert_eq!("7d".parse::<Never>().unwrap().to_string(), "7d");
        assert!("7".parse::<Never>().is_err());
    }

    #[test]
    fn host_port_round_trips_and_refuses_urls() {
        for (text, host, port) in [("localhost:7400", "localhost", 7400), ("10.0.0.1:1", "10.0.0.1", 1), ("[::1]:7400", "::1", 7400)] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!((parsed.host(), parsed.port(), parsed.to_string().as_str()), (host, port, text));
        }
        for bad in
            ["", "localhost", ":7400", "localhost:0", "localhost:70000", "https://localhost:7400", "::1:7400", "[localhost]:1", "a b:1"]
        {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn file_mode_is_octal() {
        assert_eq!("0660".parse::<FileMode>().unwrap().bits(), 0o660);
        assert_eq!(FileMode::new(0o600).to_string(), "0600");
        for bad in ["", "rw", "0888", "1777", "+660", "00660"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad}");
        }
    }
}
