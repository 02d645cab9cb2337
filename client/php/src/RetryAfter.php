<?php

declare(strict_types=1);

namespace Longline;

/** What a handler throws whose own peer said when to come back, in seconds. It counts as a try. */
final class RetryAfter extends \RuntimeException
{
    public function __construct(public readonly float $seconds, string $message = 'asked to come back later')
    {
        parent::__construct($message);
    }
}
