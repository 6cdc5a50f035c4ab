//! Setters of the configuration types of every crate, so that a type may get fields without breaking who uses it.

/// Chainable setters for public fields, each named as its field: `config.packets(64).cache(0)`. `as into` takes what
/// converts into the field: words for a `String`, a bare value for an `Option`. `as some` wraps it in `Some`.
///
/// For the crates of this workspace; it may change in any version.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    (@value $value:ident) => { $value };
    (@value $value:ident into) => { $value.into() };
    (@value $value:ident some) => { Some($value) };
    ($type:ident { $($field:ident: $value:ty $(as $how:ident)?),* $(,)? }) => {
        impl $type {$(
            #[doc = concat!(
                "Sets the field [`", stringify!($field), "`](field@", stringify!($type), "::", stringify!($field), ")."
            )]
            #[must_use]
            #[inline]
            pub fn $field(mut self, $field: $value) -> Self {
                self.$field = $crate::setters!(@value $field $($how)?);
                self
            }
        )*}
    };
}
