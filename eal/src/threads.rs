//! Compile-time checks of the documented thread safety of types.

/// Asserts whether types are `Send` and `Sync`; a wrong assertion does not compile.
///
/// `T: Send + Sync`: any thread, several at a time; `T: Send, not Sync`: any thread, one at a time; `T: neither`.
///
/// For the crates of this workspace; it may change in any version.
///
/// ```
/// linecard_eal::threads! {
///     linecard_eal::Eal: Send + Sync;
///     std::cell::Cell<u8>: Send, not Sync;
///     std::rc::Rc<u8>: neither;
/// }
/// ```
///
/// ```compile_fail,E0277
/// linecard_eal::threads! { std::cell::Cell<u8>: Send + Sync; }
/// ```
///
/// ```compile_fail,E0283
/// linecard_eal::threads! { linecard_eal::Eal: Send, not Sync; }
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! threads {
    () => {};
    (@is $marker:ident $type:ty) => {
        const _: fn() = || {
            fn held_to<T: $marker + ?Sized>() {}
            held_to::<$type>();
        };
    };
    // Ambiguous, and therefore an error, if both implementations apply.
    (@not $marker:ident $type:ty) => {
        const _: fn() = || {
            trait Either<A> {
                fn one() {}
            }
            struct Marked;
            impl<T: ?Sized> Either<()> for T {}
            impl<T: $marker + ?Sized> Either<Marked> for T {}
            _ = <$type as Either<_>>::one;
        };
    };
    ($type:ty: Send + Sync; $($rest:tt)*) => {
        $crate::threads!(@is Send $type);
        $crate::threads!(@is Sync $type);
        $crate::threads!($($rest)*);
    };
    ($type:ty: Send, not Sync; $($rest:tt)*) => {
        $crate::threads!(@is Send $type);
        $crate::threads!(@not Sync $type);
        $crate::threads!($($rest)*);
    };
    ($type:ty: neither; $($rest:tt)*) => {
        $crate::threads!(@not Send $type);
        $crate::threads!(@not Sync $type);
        $crate::threads!($($rest)*);
    };
}

crate::threads! {
    crate::Eal: Send + Sync;
    crate::Memory: Send + Sync;
    crate::Domain: Send + Sync;
    crate::Zone: Send + Sync;
}
