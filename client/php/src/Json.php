<?php

declare(strict_types=1);

namespace Longline;

/** JSON with errors that are Longline's. */
final class Json
{
    /** More than a gateway takes, a page around it included. */
    private const DEPTH = 1_000;

    public static function decode(string $text): mixed
    {
        try {
            return json_decode($text, true, self::DEPTH, JSON_THROW_ON_ERROR);
        } catch (\JsonException $wrong) {
            throw new LonglineException('protocol', 'no JSON: ' . $wrong->getMessage(), retry: true, previous: $wrong);
        }
    }

    public static function encode(mixed $value): string
    {
        try {
            return json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION);
        } catch (\JsonException $wrong) {
            throw new LonglineException('bad_request', 'this is no JSON: ' . $wrong->getMessage(), previous: $wrong);
        }
    }

    /** The first so many bytes of a text, no character cut in two. */
    public static function clip(string $text, int $most): string
    {
        return strlen($text) <= $most ? $text : preg_replace('/[\xC0-\xFF]?[\x80-\xBF]*$/', '', substr($text, 0, $most));
    }
}
