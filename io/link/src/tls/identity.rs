//! Who a client is by its certificate, which was verified before. Knows no rule.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// What a verified client certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject as text (RFC 4514), like `CN=agent,O=Example`. May be empty.
    pub subject: String,
    /// DNS names, URIs (SPIFFE ids among them), mail addresses and IP addresses, in the order of the certificate (RFC 5280,
    /// 4.2.1.6). Other kinds are left out.
    pub alt_names: Vec<AltName>,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
}

/// One alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AltName {
    /// A host.
    Dns(String),
    /// A URI.
    Uri(String),
    /// A mail address.
    Email(String),
    /// An IP address.
    Ip(IpAddr),
}

impl ClientIdentity {
    /// `None`: not readable by the letter of DER.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = Certificate::from_der(certificate).ok()?;
        let alt_names = match parsed.tbs_certificate.get::<SubjectAltName>().ok()? {
            Some((_, SubjectAltName(names))) => names.iter().filter_map(alt_name).collect(),
            None => Vec::new(),
        };
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
        Some(ClientIdentity { subject: parsed.tbs_certificate.subject.to_string(), alt_names, fingerprint })
    }
}

fn alt_name(name: &GeneralName) -> Option<AltName> {
    match name {
        GeneralName::DnsName(name) => Some(AltName::Dns(name.to_string())),
        GeneralName::UniformResourceIdentifier(uri) => Some(AltName::Uri(uri.to_string())),
        GeneralName::Rfc822Name(address) => Some(AltName::Email(address.to_string())),
        GeneralName::IpAddress(octets) => match octets.as_bytes().len() {
            4 => <[u8; 4]>::try_from(octets.as_bytes()).ok().map(|octets| AltName::Ip(octets.into())),
            16 => <[u8; 16]>::try_from(octets.as_bytes()).ok().map(|octets| AltName::Ip(octets.into())),
            _ => None,
        },
        _ => None,
    }
}
