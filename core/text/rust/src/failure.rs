//! What crosses the C ABI instead of a result: an absl::StatusCode and a message.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 3,
    Unimplemented = 12,
    Internal = 13,
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn invalid(message: impl Into<String>) -> Self {
        Failure { code: Code::InvalidArgument, message: message.into() }
    }
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Failure { code: Code::Unimplemented, message: message.into() }
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Failure { code: Code::Internal, message: message.into() }
    }
}
