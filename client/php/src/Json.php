<?php

declare(strict_types=1);

namespace Longline;

/** JSON with errors that are Longline's. */
final class Json
{
    /** More than PHP's parser, which gives up at some 5,000. */
    private const DEPTH = 10_000;

    public static function decode(string $text): mixed
    {
        try {
            return json_decode($text, true, self::DEPTH, JSON_THROW_ON_ERROR);
        } catch (\JsonException $wrong) {
            $whole = $wrong->getCode() === JSON_ERROR_UTF16 ? self::whole($text) : $text;
            if ($whole !== $text) {
                return self::decode($whole);
            }
            throw new LonglineException('protocol', 'no JSON: ' . $wrong->getMessage(), retry: true, previous: $wrong);
        }
    }

    /** Halves of surrogate pairs, which stand for no character, replaced: an event must not be unreadable for one. */
    private static function whole(string $text): string
    {
        $pair = 'u[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2}';
        return preg_replace('/\\\\(?:' . $pair . '(*SKIP)(*FAIL)|u[dD][89a-fA-F][0-9a-fA-F]{2}|[^u](*SKIP)(*FAIL))/', '\\\\ufffd', $text) ?? $text;
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
