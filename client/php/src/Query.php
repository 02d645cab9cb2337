<?php

declare(strict_types=1);

namespace Longline;

/** Queries of what is set. */
final class Query
{
    /** @param array<string, string|int|null> $fields */
    public static function of(array $fields): string
    {
        $text = http_build_query(array_filter($fields, static fn ($v) => $v !== null && $v !== ''), '', '&', PHP_QUERY_RFC3986);
        return $text === '' ? '' : "?$text";
    }
}
