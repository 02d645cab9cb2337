<?php

declare(strict_types=1);

namespace Longline\Adapters;

use Longline\Callback;

/** Callbacks as a route of WordPress's REST API. Loads without WordPress. */
final class WordPress
{
    /**
     * Registers a route, e.g. `route('longline/v1', '/callback', $secret, $handler)`
     * for /wp-json/longline/v1/callback. Call it on `rest_api_init`. It is open to
     * whoever signs: the signature is the permission.
     *
     * @param string|list<string>|callable(): (string|list<string>) $secret
     * @param callable(\Longline\Event, \Longline\Delivery): mixed $handler
     */
    public static function route(string $namespace, string $route, #[\SensitiveParameter] string|array|callable $secret, callable $handler): void
    {
        \register_rest_route($namespace, $route, [
            'methods' => 'POST',
            'permission_callback' => '__return_true',
            'callback' => static function ($request) use ($secret, $handler) {
                // WordPress spells names of headers with underscores.
                $headers = [];
                foreach ($request->get_headers() as $name => $values) {
                    $headers[strtr((string) $name, '_', '-')] = $values;
                }
                $answer = Callback::answer($headers, $request->get_body(), is_callable($secret) ? $secret() : $secret, $handler);
                $body = $answer->header('content-type') === 'application/json' ? json_decode($answer->body, true) : ($answer->body ?: null);
                $more = array_diff_key($answer->headers, ['content-type' => 1]);
                return new \WP_REST_Response($body, $answer->status, $more);
            },
        ]);
    }
}
