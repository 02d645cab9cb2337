<?php

declare(strict_types=1);

namespace Longline;

/** Carries requests by PHP's own streams, which need no extension but openssl for https. */
final class StreamTransport implements Transport
{
    public function send(string $method, string $url, array $headers, ?string $body, float $timeout): Answer
    {
        $lines = [];
        foreach ($headers + ['connection' => 'close'] as $name => $value) {
            $lines[] = "$name: $value";
        }
        $context = stream_context_create(['http' => [
            'method' => $method, 'header' => $lines, 'content' => $body ?? '', 'timeout' => $timeout,
            'ignore_errors' => true, 'follow_location' => 0, 'protocol_version' => 1.1,
        ]]);
        $why = '';
        $until = hrtime(true) / 1e9 + $timeout;
        set_error_handler(static function (int $level, string $message) use (&$why): bool {
            $why = $message;
            return true;
        });
        try {
            $stream = fopen($url, 'r', false, $context);
            $answer = $stream ? '' : false;
            // However slowly it drips.
            while ($stream && !feof($stream)) {
                $left = $until - hrtime(true) / 1e9;
                $part = $left > 0 && stream_set_timeout($stream, (int) $left, (int) (($left - (int) $left) * 1e6)) ? fread($stream, 1 << 16) : false;
                if ($part === false || stream_get_meta_data($stream)['timed_out']) {
                    [$answer, $why] = [false, $left > 0 ? $why : 'timed out'];
                    break;
                }
                $answer .= $part;
            }
            $about = $stream ? stream_get_meta_data($stream) : [];
        } finally {
            restore_error_handler();
        }
        if ($answer === false || ($about['timed_out'] ?? false)) {
            $why = preg_replace('/^.*?(failed to open stream|Failed to open stream): /', '', $why);
            throw LonglineException::connection("$method " . parse_url($url, PHP_URL_PATH) . ': ' . ($why ?: 'timed out'), $headers['x-request-id'] ?? '');
        }
        $status = 0;
        $got = [];
        foreach ($about['wrapper_data'] ?? [] as $line) {
            if (preg_match('{^HTTP/\S+ (\d+)}', $line, $match)) {
                $status = (int) $match[1];
                $got = [];
            } elseif (str_contains($line, ':')) {
                [$name, $value] = explode(':', $line, 2);
                $got[strtolower(trim($name))] = trim($value);
            }
        }
        if (isset($got['content-length']) && strlen($answer) < (int) $got['content-length']) {
            throw LonglineException::connection("$method: the answer was cut off", $headers['x-request-id'] ?? '');
        }
        return new Answer($status, $got, $answer);
    }
}
