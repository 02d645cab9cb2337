<?php

declare(strict_types=1);

namespace Longline\Adapters;

use Longline\Callback;

/** Callbacks as an action of Laravel's, or of anything on Symfony's HttpFoundation. Loads without either. */
final class Laravel
{
    /**
     * An action: `Route::post('/longline', Laravel::callback(config('longline.secret'), $handler))`,
     * outside the CSRF check (the `api` routes are).
     *
     * @param string|list<string> $secret
     * @param callable(\Longline\Event, \Longline\Delivery): mixed $handler
     * @return \Closure($request): mixed
     */
    public static function callback(#[\SensitiveParameter] string|array $secret, callable $handler): \Closure
    {
        return static function ($request) use ($secret, $handler) {
            $answer = Callback::answer($request->headers->all(), $request->getContent(), $secret, $handler);
            return \response($answer->body, $answer->status, $answer->headers);
        };
    }
}
