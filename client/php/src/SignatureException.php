<?php

declare(strict_types=1);

namespace Longline;

/** A callback that is not signed by the secret, or too long ago. */
final class SignatureException extends \RuntimeException
{
}
