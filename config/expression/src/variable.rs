//! The names that an expression may read, and who gives their values. The names are those of agentgateway's expressions.

use std::fmt;

use crate::value::Value;

/// Where an expression stands, which says what it may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A request's head and who sent it.
    Http,
    /// The same, and what an MCP message asks for.
    Mcp,
}

macro_rules! variables {
    ($($(#[doc = $doc:literal])* $variant:ident = $path:literal in $scope:ident;)*) => {
        /// What an expression may read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Variable { $($(#[doc = $doc])* $variant,)* }

        impl Variable {
            /// All of them.
            pub const ALL: &'static [Variable] = &[$(Variable::$variant,)*];

            /// Its name, with dots.
            pub const fn path(self) -> &'static str {
                match self { $(Variable::$variant => $path,)* }
            }

            /// What it says.
            pub fn description(self) -> String {
                let lines: &[&str] = match self { $(Variable::$variant => &[$($doc),*],)* };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }

            const fn needs(self) -> Scope {
                match self { $(Variable::$variant => Scope::$scope,)* }
            }
        }
    };
}

variables! {
    /// The method, like `POST`.
    RequestMethod = "request.method" in Http;
    /// Scheme, host and path with query.
    RequestUri = "request.uri" in Http;
    /// The host, without its port.
    RequestHost = "request.host" in Http;
    /// `http` or `https`.
    RequestScheme = "request.scheme" in Http;
    /// The path, without the query.
    RequestPath = "request.path" in Http;
    /// The path with the query.
    RequestPathAndQuery = "request.pathAndQuery" in Http;
    /// `HTTP/1.1` or the like.
    RequestVersion = "request.version" in Http;
    /// The headers by their names in lower case: a string, or a list where the header is there more than once.
    RequestHeaders = "request.headers" in Http;
    /// The client's IP address.
    SourceAddress = "source.address" in Http;
    /// The client's port.
    SourcePort = "source.port" in Http;
    /// The subject of the client's certificate.
    SourceSubject = "source.subject" in Http;
    /// The common name in it.
    SourceSubjectCn = "source.subjectCn" in Http;
    /// Its alternative names.
    SourceSubjectAltNames = "source.subjectAltNames" in Http;
    /// The first of them that is a `spiffe://` URI.
    SourceSpiffeId = "source.spiffeId" in Http;
    /// SHA-256 of the certificate, in hexadecimal digits.
    SourceFingerprint = "source.fingerprint" in Http;
    /// The claims of a verified token; empty without one.
    Jwt = "jwt" in Http;
    /// The metadata of a verified API key; empty without one.
    ApiKey = "apiKey" in Http;
    /// The user whose password was verified.
    BasicAuthUsername = "basicAuth.username" in Http;
    /// The method of the MCP message.
    McpMethodName = "mcp.methodName" in Mcp;
    /// The client's session, where it has one.
    McpSessionId = "mcp.sessionId" in Mcp;
    /// The tool's own name at its target.
    McpToolName = "mcp.tool.name" in Mcp;
    /// The tool's target.
    McpToolTarget = "mcp.tool.target" in Mcp;
    /// How suspicious the tool is, 0 to 100, where a lock has looked at it.
    McpToolRisk = "mcp.tool.risk" in Mcp;
    /// The prompt's own name at its target.
    McpPromptName = "mcp.prompt.name" in Mcp;
    /// The prompt's target.
    McpPromptTarget = "mcp.prompt.target" in Mcp;
    /// The resource's own URI at its target, or a template's.
    McpResourceName = "mcp.resource.name" in Mcp;
    /// The resource's target.
    McpResourceTarget = "mcp.resource.target" in Mcp;
}

/// Names of the vocabulary that have no value here.
const NOT_BUILT: &[&str] = &[
    "request.body",
    "request.bodyPrefix",
    "request.startTime",
    "request.endTime",
    "response",
    "proxy",
    "env",
    "llm",
    "llmRequest",
    "destination",
    "backend",
    "source.rawAddress",
    "source.rawPort",
    "source.identity",
    "source.issuer",
    "source.certificate",
    "source.unverifiedWorkload",
    "source.connectHeaders",
    "mcp.task",
    "mcp.tool.arguments",
    "mcp.tool.result",
    "mcp.tool.error",
    "apiKey.key",
    "jwt.rawToken",
];

impl Variable {
    const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Its members are not known before it is there.
    const fn is_open(self) -> bool {
        matches!(self, Variable::RequestHeaders | Variable::Jwt | Variable::ApiKey)
    }

    /// The variable that `path` names or leads through, with the number of segments that name it.
    pub(crate) fn of(path: &[&str], scope: Scope) -> Result<(Variable, usize), Unnamed> {
        if NOT_BUILT.iter().any(|known| starts_with(path, known)) {
            return Err(Unnamed::NotBuilt);
        }
        for &variable in Variable::ALL.iter().filter(|variable| variable.is_in(scope)) {
            let length = segments(variable.path());
            if starts_with(path, variable.path()) && (path.len() == length || variable.is_open()) {
                return Ok((variable, length));
            }
        }
        Err(match Variables::under(path, scope) {
            inner if inner.is_empty() => Unnamed::Unknown,
            inner => Unnamed::Inner(inner),
        })
    }

    fn is_in(self, scope: Scope) -> bool {
        scope == Scope::Mcp || self.needs() == Scope::Http
    }
}

/// Why a path is no variable.
pub(crate) enum Unnamed {
    Unknown,
    NotBuilt,
    /// It only leads to these.
    Inner(Variables),
}

fn segments(path: &str) -> usize {
    path.split('.').count()
}

/// Whether the path begins with all segments of `front`.
fn starts_with(path: &[&str], front: &str) -> bool {
    let mut own = path.iter();
    front.split('.').all(|segment| own.next() == Some(&segment))
}

/// A set of variables.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Variables(u32);

// Each has a bit.
const _: () = assert!(Variable::ALL.len() <= u32::BITS as usize);

impl Variables {
    pub const NONE: Variables = Variables(0);

    pub const fn of(variables: &[Variable]) -> Self {
        let (mut bits, mut place) = (0, 0);
        while place < variables.len() {
            bits |= variables[place].bit();
            place += 1;
        }
        Variables(bits)
    }

    /// Those that a path leads to.
    pub(crate) fn under(path: &[&str], scope: Scope) -> Self {
        let leads = |variable: &&Variable| {
            let name: Vec<&str> = variable.path().split('.').collect();
            variable.is_in(scope) && name.len() > path.len() && name.starts_with(path)
        };
        Variables(Variable::ALL.iter().filter(leads).fold(0, |bits, variable| bits | variable.bit()))
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn contains(self, variable: Variable) -> bool {
        self.0 & variable.bit() != 0
    }

    pub const fn and(self, other: Variables) -> Self {
        Variables(self.0 | other.0)
    }

    /// Whether there is nothing in it but what the other has.
    pub const fn is_within(self, other: Variables) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Variable> {
        Variable::ALL.iter().copied().filter(move |variable| self.contains(*variable))
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Whoever knows the values.
pub trait Inputs {
    /// The value, if there is one. `jwt` and `apiKey` are empty maps where nothing was verified.
    fn value(&self, variable: Variable) -> Option<Value<'_>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_variable() {
        let found = |path: &str, scope| {
            let path: Vec<&str> = path.split('.').collect();
            Variable::of(&path, scope).ok()
        };
        assert_eq!(found("jwt", Scope::Http), Some((Variable::Jwt, 1)));
        assert_eq!(found("jwt.a.b", Scope::Http), Some((Variable::Jwt, 1)));
        assert_eq!(found("request.headers.x", Scope::Http), Some((Variable::RequestHeaders, 2)));
        assert_eq!(found("mcp.tool.name", Scope::Mcp), Some((Variable::McpToolName, 3)));
        for (path, scope) in [
            ("mcp.tool.name", Scope::Http),
            ("mcp.tool", Scope::Mcp),
            ("mcp.tool.nam", Scope::Mcp),
            ("mcp.tool.name.x", Scope::Mcp),
            ("jwt.rawToken", Scope::Http),
            ("response.code", Scope::Http),
            ("nothing", Scope::Http),
        ] {
            assert_eq!(found(path, scope), None, "{path}");
        }
    }
}
