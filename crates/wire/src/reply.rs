//! From checked values to messages.

use types::{ConsumerKind, ConsumerRef, Position, ScopeSet};

use crate::{PublicError, internal, v1};

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self { generation: position.generation.get(), revision: position.revision.get() }
    }
}

impl From<Position> for internal::FeedPosition {
    fn from(position: Position) -> Self {
        Self { generation: position.generation.get(), revision: position.revision.get() }
    }
}

impl From<Position> for v1::Receipt {
    fn from(position: Position) -> Self {
        Self { position: Some(position.into()) }
    }
}

impl From<ConsumerKind> for v1::ConsumerKind {
    fn from(kind: ConsumerKind) -> Self {
        match kind {
            ConsumerKind::Worker => Self::Worker,
            ConsumerKind::Gateway => Self::Gateway,
            ConsumerKind::Dex => Self::Dex,
            ConsumerKind::Access => Self::Access,
            ConsumerKind::Container => Self::Container,
            ConsumerKind::Websearch => Self::Websearch,
        }
    }
}

impl From<ConsumerRef> for v1::ConsumerRef {
    fn from(consumer: ConsumerRef) -> Self {
        Self { account: consumer.account.to_string(), kind: v1::ConsumerKind::from(consumer.kind).into(), name: consumer.name.into() }
    }
}

impl v1::WaitLiveReply {
    /// Whether there is an edge, and every one of them holds the position, as far as the whole cluster knows.
    pub const fn is_everywhere(&self) -> bool {
        self.edges_known > 0 && self.edges_live >= self.edges_known && self.controls_unheard == 0
    }
}

/// In alphabetical order of their names.
impl From<ScopeSet> for v1::ScopeList {
    fn from(scopes: ScopeSet) -> Self {
        Self { scopes: scopes.iter().map(|scope| scope.name().to_owned()).collect() }
    }
}

impl From<Result<v1::Found, PublicError>> for v1::Outcome {
    fn from(result: Result<v1::Found, PublicError>) -> Self {
        let outcome = match result {
            Ok(found) => v1::outcome::Outcome::Found(found),
            Err(error) => v1::outcome::Outcome::Error(error.detail()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl v1::Outcome {
    /// What was found, or why nothing was.
    ///
    /// # Errors
    /// What the server said; [`crate::ErrorKind::Internal`] when it said nothing.
    pub fn into_result(self) -> Result<v1::Found, PublicError> {
        match self.outcome {
            Some(v1::outcome::Outcome::Found(found)) => Ok(found),
            Some(v1::outcome::Outcome::Error(detail)) => Err(PublicError::from_detail(detail)),
            None => Err(PublicError::new(crate::ErrorKind::Internal, "the server sent an outcome without content")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn outcome_round_trips_and_an_empty_one_is_an_error() {
        let found = v1::Found { value: b"v".to_vec(), version: 2, ..Default::default() };
        assert_eq!(v1::Outcome::from(Ok(found.clone())).into_result(), Ok(found));
        let error = PublicError::new(ErrorKind::NotBound, "worker/web has no binding API_KEY");
        assert_eq!(v1::Outcome::from(Err(error.clone())).into_result(), Err(error));
        assert_eq!(v1::Outcome::default().into_result().unwrap_err().kind, ErrorKind::Internal);
    }

    #[test]
    fn position_round_trips() {
        let position: Position = "3.42".parse().unwrap();
        assert_eq!(Position::from(v1::Position::from(position)), position);
        assert_eq!(Position::from(internal::FeedPosition::from(position)), position);
    }
}
