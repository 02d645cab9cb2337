<?php

declare(strict_types=1);

namespace Longline;

/** What a request was answered. Names of headers are in lower case. */
final class Answer
{
    /** @param array<string, string> $headers */
    public function __construct(
        public readonly int $status,
        public readonly array $headers = [],
        public readonly string $body = '',
    ) {
    }

    public function header(string $name): string
    {
        return $this->headers[$name] ?? '';
    }
}
