//! Why an exchange with a host came to nothing. Knows no registry: only names, connections, TLS and HTTP.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why an exchange came to nothing. Its texts are the same on every machine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The host's name has no address.
    #[error("no address is known for that host name")]
    Name,
    /// Nothing listens there.
    #[error("the connection was refused")]
    Refused,
    /// There is no such socket on this machine.
    #[error("there is no such socket")]
    Absent,
    /// This user may not open the socket.
    #[error("this user may not open the socket")]
    Denied,
    /// There is no way to the host.
    #[error("the host or its network cannot be reached")]
    Unreachable,
    /// No connection came about in time.
    #[error("no connection within {}", humantime::format_duration(*.0))]
    Connect(Duration),
    /// Not one byte moved for too long.
    #[error("no byte moved for {}", humantime::format_duration(*.0))]
    Idle(Duration),
    /// Bytes trickle.
    #[error("less than 1 KiB came in a second, for long")]
    Slow,
    /// The connection ended in the middle.
    #[error("the connection was cut")]
    Cut,
    /// There is no trusted, encrypted connection.
    #[error("no trusted TLS connection: {0}")]
    Tls(Tls),
    /// What answers does not speak HTTP.
    #[error("what answers does not speak HTTP")]
    NotHttp,
    /// The proxy does not let us through.
    #[error("the proxy does not let us through")]
    Proxy,
    /// Something on this machine is wrong: a setting, or a file of it.
    #[error("{0}")]
    Setup(String),
    /// A file of this machine cannot be read.
    #[error("{0}")]
    Local(Arc<io::Error>),
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
}

/// Why a TLS connection is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Tls {
    /// Nobody we trust signed the certificate.
    #[error("its certificate is signed by an authority that is not trusted")]
    Authority,
    /// The certificate is past its date, or before it.
    #[error("its certificate is not valid at this time")]
    Date,
    /// The certificate is another host's.
    #[error("its certificate is for another host name")]
    Host,
    /// The other side wants a certificate of ours, or refuses it.
    #[error("it refuses the connection ({0})")]
    Alert(String),
    /// The other side does not speak TLS.
    #[error("it does not speak TLS")]
    Unspoken,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// Tells whether it may be otherwise the next time.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Refused
            | Self::Unreachable
            | Self::Connect(_)
            | Self::Idle(_)
            | Self::Slow
            | Self::Cut
            | Self::Name
            | Self::Other(_) => true,
            Self::Tls(_)
            | Self::NotHttp
            | Self::Proxy
            | Self::Setup(_)
            | Self::Local(_)
            | Self::Absent
            | Self::Denied
            | Self::Stopped => false,
        }
    }

    /// Tells whether the host was not reached at all.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Unreachable
                | Self::Connect(_)
                | Self::Idle(_)
                | Self::Slow
                | Self::Cut
                | Self::Name
        )
    }

    /// Reads what reqwest says. `connect` is the limit that was set for a connection.
    pub(crate) fn of(error: &reqwest::Error, connect: Duration) -> Self {
        if error.is_dns() {
            return Self::Name;
        }
        let mut texts = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = next {
            if let Some(fault) = Self::of_one(error, connect) {
                return fault;
            }
            texts.push(error.to_string());
            next = error.source();
        }
        let has = |word: &str| texts.iter().any(|text| text.contains(word));
        if error.is_timeout() {
            Self::Connect(connect)
        } else if has("tunnel") || has("proxy") {
            Self::Proxy
        } else if has("invalid HTTP") || has("message head is too large") {
            Self::NotHttp
        } else if has("closed before")
            || has("end of file before")
            || has("unexpected EOF")
            || has("connection was not ready")
        {
            Self::Cut
        } else {
            Self::Other(texts.pop().unwrap_or_else(|| "it failed".to_owned()))
        }
    }

    fn of_one(error: &(dyn Error + 'static), connect: Duration) -> Option<Self> {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::Tls(Tls::of(tls)));
        }
        let error = error.downcast_ref::<io::Error>()?;
        // An io error gives the source of what it holds, and not what it holds.
        if let Some(inner) = error.get_ref()
            && let Some(fault) = Self::of_one(inner, connect)
        {
            return Some(fault);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::NotFound => Some(Self::Absent),
            io::ErrorKind::PermissionDenied => Some(Self::Denied),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Some(Self::Cut),
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => Some(Self::Unreachable),
            io::ErrorKind::TimedOut => Some(Self::Connect(connect)),
            _ => None,
        }
    }
}

impl Tls {
    fn of(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Bad;
        match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                // A stranger of the same name as an authority.
                Bad::UnknownIssuer | Bad::BadSignature => Self::Authority,
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. } => Self::Date,
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Self::Host,
                other => Self::Other(other.to_string()),
            },
            rustls::Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            rustls::Error::InvalidMessage(_) => Self::Unspoken,
            other => Self::Other(other.to_string()),
        }
    }
}
