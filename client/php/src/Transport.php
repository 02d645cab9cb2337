<?php

declare(strict_types=1);

namespace Longline;

/** Carries requests. Throws a LonglineException of code "connection" where there is no answer. */
interface Transport
{
    /** @param array<string, string> $headers */
    public function send(string $method, string $url, array $headers, ?string $body, float $timeout): Answer;
}
