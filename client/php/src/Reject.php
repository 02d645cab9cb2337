<?php

declare(strict_types=1);

namespace Longline;

/**
 * What a handler throws for an event that can't be handled, now or later: it is
 * not called again, the event is dead-lettered and the next one follows. Any
 * other exception has it called again.
 */
final class Reject extends \RuntimeException
{
}
