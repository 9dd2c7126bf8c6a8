//! What a client reads.

/// A final response, as far as it has come whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// It says that the connection ends with it.
    pub closes: bool,
    /// It is one of the proxy's own.
    pub is_problem: bool,
}

/// The final responses at the beginning of `bytes`; `is_head` tells which of them are to a HEAD.
pub fn answers(mut bytes: &[u8], is_head: impl Fn(usize) -> bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let status: u16 = head["HTTP/1.1 ".len()..][..3].parse().expect("a status");
        if status < 200 {
            continue;
        }
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length: usize = field("content-length: ").expect("a length").parse().expect("a number");
        let is_problem = field("proxy-status: aem-auth-proxy; error=").is_some()
            && field("content-type: application/problem+json").is_some();
        let body = match bytes.get(..length) {
            _ if is_head(answers.len()) && (!is_problem || status == 403) => &[],
            Some(body) => body,
            // The last one, to a HEAD, which may have been known as one, or not.
            None if is_problem => &[],
            None => break,
        };
        let closes = head.contains("\r\nconnection: close");
        let answer = Answer { status, body: body.to_vec(), closes, is_problem };
        bytes = &bytes[body.len()..];
        answers.push(answer);
    }
    answers
}
