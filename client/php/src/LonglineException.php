<?php

declare(strict_types=1);

namespace Longline;

/**
 * What the gateway, or this library in its place, has to say about something
 * that didn't work. `errorCode` is as in the gateway's problems ("forbidden"),
 * `status` the HTTP status (0: none), `retry` whether the same again may
 * succeed, `retryAfter` the seconds that the gateway asked to wait before that,
 * `requestId` the x-request-id the request had.
 */
final class LonglineException extends \RuntimeException
{
    private const BY_STATUS = [
        400 => 'bad_request', 401 => 'unauthorized', 403 => 'forbidden', 404 => 'not_found', 409 => 'conflict',
        410 => 'gone', 413 => 'too_large', 429 => 'rate_limited',
    ];

    public function __construct(
        public readonly string $errorCode,
        string $message,
        public readonly int $status = 0,
        public readonly bool $retry = false,
        public readonly ?float $retryAfter = null,
        public readonly string $requestId = '',
        ?\Throwable $previous = null,
    ) {
        parent::__construct("$errorCode: $message", $status, $previous);
    }

    /** The error for an answer that is no success, by its problem document (RFC 9457) where it has one. */
    public static function ofAnswer(Answer $answer, string $requestId): self
    {
        $problem = str_contains($answer->header('content-type'), 'problem+json') ? json_decode($answer->body, true) : null;
        $code = is_string($problem['code'] ?? null) ? $problem['code'] : (self::BY_STATUS[$answer->status] ?? 'error');
        if ($answer->status >= 500 && !isset($problem['code'])) {
            $code = 'unavailable';
        }
        $after = $answer->header('retry-after');
        $wait = ctype_digit($after) ? min((float) $after, 86400.0) : null;
        $detail = is_string($problem['detail'] ?? null) ? $problem['detail'] : "answered {$answer->status}";
        if ($answer->status >= 300 && $answer->status < 400) {
            $detail = "answered {$answer->status}, to {$answer->header('location')}: redirects are not followed, want the gateway's own URL";
        }
        $retry = $answer->status >= 500 || in_array($answer->status, [408, 429], true);
        return new self($code, $detail, $answer->status, $retry, $wait, $answer->header('x-request-id') ?: $requestId);
    }

    public static function connection(string $message, string $requestId = '', ?\Throwable $previous = null): self
    {
        return new self('connection', $message, 0, true, null, $requestId, $previous);
    }
}
