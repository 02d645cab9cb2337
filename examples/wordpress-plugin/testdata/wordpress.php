<?php

/** As much of WordPress as the plugin calls, as a router for php -S. */
declare(strict_types=1);

define('ABSPATH', __DIR__);
define('OBJECT', 'OBJECT');

class WP_REST_Response
{
    public function __construct(public mixed $data, public int $status, public array $headers = [])
    {
    }
}

class WP_REST_Request
{
    public function get_headers(): array
    {
        $made = [];
        foreach ($_SERVER as $name => $value) {
            if (str_starts_with($name, 'HTTP_')) {
                $made[strtolower(substr($name, 5))] = [$value];
            }
        }
        return $made;
    }

    public function get_body(): string
    {
        return file_get_contents('php://input');
    }
}

function add_action(string $name, callable $action): void
{
    $GLOBALS['actions'][$name] = $action;
}

function register_rest_route(string $namespace, string $route, array $how): void
{
    $GLOBALS['routes']["/wp-json/$namespace$route"] = $how;
}

function get_option(string $name): mixed
{
    return $name === 'longline_secret' ? getenv('LONGLINE_CALLBACK_SECRET') : false;
}

function get_page_by_path(string $name): ?object
{
    return in_array("name $name", @file(getenv('NOTES'), FILE_IGNORE_NEW_LINES) ?: [], true) ? (object) [] : null;
}

function wp_insert_post(array $post): int
{
    file_put_contents(getenv('NOTES'), "name {$post['post_name']}\n{$post['post_title']}\n", FILE_APPEND);
    return 1;
}

function is_wp_error(mixed $thing): bool
{
    return false;
}

function wp_json_encode(mixed $value): string
{
    return json_encode($value);
}

require __DIR__ . '/../longline-notes.php';
$GLOBALS['actions']['rest_api_init']();
$how = $GLOBALS['routes'][parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)] ?? null;
$response = $how ? $how['callback'](new WP_REST_Request()) : new WP_REST_Response('no route', 404);
http_response_code($response->status);
foreach ($response->headers as $name => $value) {
    header("$name: $value");
}
echo $response->data === null ? '' : json_encode($response->data);
