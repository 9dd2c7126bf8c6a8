//! Why there are no credentials.

use std::io;

use super::{CertificateError, LocalTokenError, MAX_FILE_MIB, PrivateKeyError};
use crate::text_file::{EncodingError, SAVE_AS_UTF8};

/// Why there are no credentials. Messages go behind the name of the file or variable, and hold nothing
/// of the document but names of fields.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// There is no such file.
    #[error(
        "not found: download the credentials from the AEM Developer Console (Integrations) or the Adobe \
         Developer Console (OAuth Server-to-Server) and give the path of that file"
    )]
    NotFound,
    /// The file is not ours to read.
    #[error("permission denied: let the user who runs the proxy read the file")]
    PermissionDenied,
    /// The file is there and cannot be read all the same.
    #[error("cannot be read: {0}: give the path of a regular file of at most {MAX_FILE_MIB} MiB")]
    Unreadable(io::Error),
    /// Nothing but white space; a file that is just being written looks so, too.
    #[error("is empty: put the document there that Adobe's console gave")]
    Empty,
    /// Another encoding.
    #[error("{0}: {SAVE_AS_UTF8}")]
    Encoding(EncodingError),
    /// The place alone, in the text after base64 was undone.
    #[error(
        "is not valid JSON at line {line}, column {column}: download the document again; within it, line \
         ends of keys must stay spelled out as `\\n`"
    )]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 where the break before the line is the fault.
        column: usize,
    },
    /// A list, a string or a number.
    #[error("is JSON, but not an object: use the whole document as Adobe's console gives it")]
    NotAnObject,
    /// A value of the environment that is neither form.
    #[error(
        "is neither a JSON object, nor base64 of one, nor a local token: give the document itself or its \
         base64, without quotes round it; the path of a file belongs in `file`, or `credentials_file` in the \
         simple form"
    )]
    NeitherJsonNorBase64,
    /// A value of the environment that is base64, though not of the document.
    #[error("is base64, but not of a JSON object: encode the document itself, and once only")]
    Base64OfSomethingElse,
    /// The console could not give the credentials and wrote that down.
    #[error("says `ok: false`, so it holds an error in place of credentials: download the document again")]
    NotOk,
    /// None of the documents that are known, or too little of one.
    #[error(
        "is not a document that is known here: use the whole document as Adobe's console gives it, be it \
         service credentials (`integration`), an OAuth Server-to-Server credential (`project`, or `client_id` \
         and `client_secrets`) or a local token (`accessToken`)"
    )]
    UnknownDocument,
    /// A JWT credential of the other console, whose download has no private key.
    #[error(
        "is a service account (JWT) credential of the Adobe Developer Console, whose time is over: migrate it \
         to OAuth Server-to-Server there and download that one, or use the service credentials of the AEM \
         Developer Console (Integrations)"
    )]
    JwtOfAdobeDeveloperConsole,
    /// A project without a credential of the kind that is wanted.
    #[error(
        "is a project without an OAuth Server-to-Server credential, with {found}: add one to the project in \
         the Adobe Developer Console and download it again"
    )]
    NoOAuthCredential {
        /// The kinds that it has, in words of a closed set.
        found: String,
    },
    /// Nothing says which of a project's credentials is meant, or what does fits more than one.
    #[error(
        "is a project with {count} OAuth Server-to-Server credentials, {names}: set `name`, or \
         `credentials_name` in the simple form, to the name or client id of the one to use"
    )]
    SeveralCredentials {
        /// How many.
        count: usize,
        /// What they are called: printable, of bounded length.
        names: String,
    },
    /// The name that was given is none of the project's.
    #[error(
        "is a project in which no OAuth Server-to-Server credential has that `name`: set it to the name or \
         client id of one that is there, {names}"
    )]
    NoSuchName {
        /// What those are called that are there: printable, of bounded length.
        names: String,
    },
    /// A bare token that is of no use.
    #[error("{0}")]
    LocalToken(LocalTokenError),
    /// A token in a document that is of no use.
    #[error("`{field}` {problem}")]
    AccessToken {
        /// The field's path from the top of the document.
        field: String,
        /// What is wrong with the token; part of the message, so not a source.
        problem: LocalTokenError,
    },
    /// A field is absent or `null`.
    #[error("`{field}` is missing: use the whole document as Adobe's console gives it")]
    Missing {
        /// The field's path from the top of the document.
        field: String,
    },
    /// A field holds only white space, an empty list or commas.
    #[error("`{field}` is empty: use the whole document as Adobe's console gives it")]
    EmptyField {
        /// The field's path from the top of the document.
        field: String,
    },
    /// A field is of another JSON type.
    #[error("`{field}` is not {expected}: use the whole document as Adobe's console gives it")]
    WrongType {
        /// The field's path from the top of the document.
        field: String,
        /// The JSON type that would do, with its article.
        expected: &'static str,
    },
    /// The endpoint is more than a host, or less.
    #[error("`{field}` is not a host name: put a name such as `ims-na1.adobelogin.com` there, and no path")]
    ImsEndpoint {
        /// The field's path from the top of the document.
        field: String,
    },
    /// The key cannot sign.
    #[error("`{field}` {problem}")]
    PrivateKey {
        /// The field's path from the top of the document.
        field: String,
        /// What is wrong with the key; part of the message, so not a source.
        problem: PrivateKeyError,
    },
    /// The certificate is none.
    #[error("`{field}` {problem}")]
    Certificate {
        /// The field's path from the top of the document.
        field: String,
        /// What is wrong with the certificate; part of the message, so not a source.
        problem: CertificateError,
    },
    /// The field is a path, and the file there cannot be read.
    #[error("`{field}` names a file that cannot be read: {problem}: let the proxy's user read it")]
    PemFile {
        /// The field's path from the top of the document.
        field: String,
        /// What the system said; part of the message, so not a source.
        problem: io::Error,
    },
    /// The field is a path, and the file there is in another encoding.
    #[error("`{field}` names a file that {problem}: {SAVE_AS_UTF8}")]
    PemEncoding {
        /// The field's path from the top of the document.
        field: String,
        /// Which; part of the message, so not a source.
        problem: EncodingError,
    },
    /// IMS would refuse every signature.
    #[error(
        "`{certificate}` is not of the key in `{private_key}`: take both from one download, or leave \
         `{certificate}` out"
    )]
    OtherKey {
        /// The certificate's path from the top of the document.
        certificate: String,
        /// The key's path from the top of the document.
        private_key: String,
    },
}
