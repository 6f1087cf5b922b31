//! Pages of a list that is ordered by a column of text which no two rows share.

use super::StoreError;
use skytale_proto::AccountId;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use std::fmt::Display;

/// Page of a list that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask<N> {
    /// Row that it begins after; without, it is the first.
    pub after: Option<N>,
    /// Rows that it has, at most.
    pub limit: u32,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub(crate) struct Paged<T, N> {
    pub rows: Vec<T>,
    /// Row that the next page begins after; nothing on the last.
    pub next: Option<N>,
}

/// A list, and how it is read.
pub(super) struct List<T, N> {
    /// Takes the account where the list is one's, then what the page begins after, then how many rows it has. Any text
    /// of the column it is ordered by comes after the empty one.
    pub select: &'static str,
    pub stored: fn(&AnyRow) -> Result<T, StoreError>,
    /// Returns the column that it is ordered by.
    pub id: fn(&T) -> N,
}

impl<T, N: Display> List<T, N> {
    /// Reads a page.
    pub(super) async fn page(
        &self,
        connection: &mut AnyConnection,
        account: Option<AccountId>,
        ask: &Ask<N>,
    ) -> Result<Paged<T, N>, StoreError> {
        let mut query = sqlx::query(self.select);
        if let Some(account) = account {
            query = query.bind(account.to_string());
        }
        let rows = query
            .bind(ask.after.as_ref().map(N::to_string).unwrap_or_default())
            // One more than the page has: whether there is another page.
            .bind(i64::from(ask.limit) + 1)
            .fetch_all(connection)
            .await?;
        let mut rows = rows.iter().map(self.stored).collect::<Result<Vec<_>, _>>()?;
        let next = cut(&mut rows, ask.limit, self.id);
        Ok(Paged { rows, next })
    }
}

/// Cuts a list that was read with one row more than the page has: the last row that stays is where the next page
/// begins, if there was one more.
pub(super) fn cut<T, N>(rows: &mut Vec<T>, limit: u32, id: impl Fn(&T) -> N) -> Option<N> {
    let limit = limit as usize;
    if rows.len() <= limit {
        return None;
    }
    rows.truncate(limit);
    rows.last().map(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_begins() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(cut(&mut rows, 2, |row| *row), Some(2));
        assert_eq!(rows, [1, 2]);
        assert_eq!(cut(&mut rows, 2, |row| *row), None);
    }
}
